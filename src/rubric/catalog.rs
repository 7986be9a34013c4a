//! The rubrics that a process knows: those shipped in the binary, those of a directory, those put at run time.
//!
//! In: names, `name@version`. Out: shared rubrics. Earlier versions stay for as long as the process lives, so that a
//! pinned version keeps working after a change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use super::{Rubric, RubricError};
use crate::{files, locks};

/// The rubric of who names none.
pub const DEFAULT: &str = "short_form_qa";

/// The rubric files in the binary, by name.
pub const SHIPPED: [(&str, &str); 7] = [
    (DEFAULT, include_str!("../../rubrics/short_form_qa.toml")),
    ("long_form_qa", include_str!("../../rubrics/long_form_qa.toml")),
    ("binary_em", include_str!("../../rubrics/binary_em.toml")),
    ("binary_judge", include_str!("../../rubrics/binary_judge.toml")),
    ("tool_use", include_str!("../../rubrics/tool_use.toml")),
    ("search_r1", include_str!("../../rubrics/search_r1.toml")),
    ("short_form_qa_curriculum", include_str!("../../rubrics/short_form_qa_curriculum.toml")),
];

/// What reads a rubric file.
type Reader = fn(&str) -> Result<Rubric, RubricError>;

/// Most versions of one rubric that are kept; the oldest goes first.
const MAX_VERSIONS: usize = 64;
/// Most files that are no rubrics and are named.
const MAX_NAMED: usize = 8;
/// Most names; a client with the admin token cannot fill the memory.
const MAX_NAMES: usize = 1024;

/// Why a catalogue could not take a rubric.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file has an error.
    #[error("{path}: {error}")]
    Rubric {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        error: RubricError,
    },
    /// The directory or file cannot be read or written.
    #[error("{path}: {error}; check the path given as --rubrics and its permissions")]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A file's name and the name in it differ.
    #[error("{path}: the rubric calls itself {name:?}; name the file {name}.toml or change its `name`")]
    Name {
        /// The file.
        path: PathBuf,
        /// The name in it.
        name: String,
    },
    /// There are too many names.
    #[error("there are {MAX_NAMES} rubrics already; remove some from the directory and restart")]
    Full,
}

/// The rubrics by name, the current version of each last.
#[derive(Debug)]
pub struct Catalog {
    directory: Option<PathBuf>,
    /// Held by whoever puts a rubric: the file that was written last is the one that is current.
    putting: Mutex<()>,
    rubrics: RwLock<BTreeMap<String, Vec<Arc<Rubric>>>>,
}

impl Catalog {
    /// The shipped rubrics, and those of the directory (`*.toml`), which win over shipped ones of the same name. Names that
    /// begin with a dot are left out: editors and [`Self::put`] keep their own files under such.
    ///
    /// # Errors
    /// When the directory cannot be read or one of its files is no rubric.
    pub fn open(directory: Option<&Path>) -> Result<Self, CatalogError> {
        Self::open_with(directory, Rubric::from_toml)
    }

    /// The same for a reader of rubric files that finds more wrong than [`Rubric::from_toml`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(directory: Option<&Path>, read: Reader) -> Result<Self, CatalogError> {
        let catalog =
            Self { directory: directory.map(Path::to_path_buf), putting: Mutex::default(), rubrics: RwLock::default() };
        for (name, text) in SHIPPED {
            let rubric = read(text)
                .map_err(|error| CatalogError::Rubric { path: format!("shipped {name}.toml").into(), error })?;
            catalog.insert(rubric)?;
        }
        if let Some(directory) = directory {
            catalog.read(directory, read)?;
        }
        Ok(catalog)
    }

    fn read(&self, directory: &Path, read: Reader) -> Result<(), CatalogError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |error| CatalogError::Io { path, error }
        };
        let (mut files, mut others) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(directory).map_err(io(directory))? {
            let path = entry.map_err(io(directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push(path);
            } else if path.is_file() {
                others.push(name);
            }
        }
        files.sort();
        let rubrics = files.len();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(io(&path))?;
            let rubric = read(&text).map_err(|error| CatalogError::Rubric { path: path.clone(), error })?;
            if path.file_stem().is_none_or(|stem| *stem != *rubric.name) {
                return Err(CatalogError::Name { path, name: rubric.name.to_string() });
            }
            self.insert(rubric)?;
        }
        tell(directory, rubrics, &mut others);
        Ok(())
    }

    /// The current rubric of a name, or the version pinned by `name@version`.
    pub fn get(&self, reference: &str) -> Option<Arc<Rubric>> {
        let (name, version) = match reference.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (reference, None),
        };
        let rubrics = locks::read(&self.rubrics);
        let versions = rubrics.get(name)?;
        match version {
            Some(version) => versions.iter().rev().find(|rubric| *rubric.version == *version).cloned(),
            None => versions.last().cloned(),
        }
    }

    /// The current rubrics, by name.
    pub fn current(&self) -> Vec<Arc<Rubric>> {
        let rubrics = locks::read(&self.rubrics);
        rubrics.values().filter_map(|versions| versions.last().cloned()).collect()
    }

    /// Versions of a name that can be pinned, the current one last.
    pub fn versions(&self, name: &str) -> Vec<Arc<str>> {
        let rubrics = locks::read(&self.rubrics);
        rubrics.get(name).into_iter().flatten().map(|rubric| rubric.version.clone()).collect()
    }

    /// Adds a rubric, or makes it the current version of its name.
    ///
    /// # Errors
    /// When there are too many.
    pub fn insert(&self, rubric: Rubric) -> Result<Arc<Rubric>, CatalogError> {
        let mut rubrics = locks::write(&self.rubrics);
        room(&rubrics, &rubric.name)?;
        let rubric = Arc::new(rubric);
        let versions = rubrics.entry(rubric.name.to_string()).or_default();
        versions.retain(|known| known.version != rubric.version);
        versions.push(rubric.clone());
        if versions.len() > MAX_VERSIONS {
            versions.remove(0);
        }
        Ok(rubric)
    }

    /// Adds a rubric and, where there is a directory, writes its text there first (through a temporary file, so that a
    /// crash leaves the old one whole). Returns whether it was written.
    ///
    /// # Errors
    /// When the file cannot be written, or there are too many rubrics; nothing has changed then, but where the disk fails at
    /// the end, the file may be the new one.
    pub fn put(&self, rubric: Rubric, text: &str) -> Result<(Arc<Rubric>, bool), CatalogError> {
        let _putting = locks::lock(&self.putting);
        let Some(directory) = &self.directory else {
            return Ok((self.insert(rubric)?, false));
        };
        room(&locks::read(&self.rubrics), &rubric.name)?;
        let path = directory.join(format!("{}.toml", rubric.name));
        // One temporary file per version: two processes that write one name do not share it.
        let temporary = directory.join(format!(".{}.{}.new", rubric.name, rubric.version));
        if let Err(error) = files::write(&temporary, text.as_bytes()).and_then(|()| files::rename(&temporary, &path)) {
            // Where it was not even made there is nothing to remove.
            let _ = std::fs::remove_file(&temporary);
            return Err(CatalogError::Io { path, error });
        }
        Ok((self.insert(rubric)?, true))
    }
}

/// Tells the log what a directory holds: a file that is misnamed would be missed in silence.
fn tell(directory: &Path, rubrics: usize, others: &mut [String]) {
    others.sort();
    let directory = directory.display();
    if !others.is_empty() {
        let (count, first) = (others.len(), others.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>());
        tracing::warn!(%directory, count, "files that do not end in .toml are no rubrics: {}", first.join(", "));
    }
    if rubrics == 0 {
        tracing::warn!(%directory, "there is no rubric file (NAME.toml) in the directory given as --rubrics");
    } else {
        tracing::info!(%directory, rubrics, "rubrics are read");
    }
}

fn room(rubrics: &BTreeMap<String, Vec<Arc<Rubric>>>, name: &str) -> Result<(), CatalogError> {
    if rubrics.len() >= MAX_NAMES && !rubrics.contains_key(name) {
        return Err(CatalogError::Full);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(weight: f64) -> String {
        format!(
            "name = \"mine\"\nstages = [{{ kind = \"f1\", weight = {weight} }}, {{ kind = \"bleu\", weight = 1 }}]\n"
        )
    }

    fn put(catalog: &Catalog, weight: f64) -> Result<(Arc<Rubric>, bool), CatalogError> {
        catalog.put(Rubric::from_toml(&text(weight)).unwrap(), &text(weight))
    }

    fn files(directory: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        std::fs::read_dir(directory).unwrap().map(name).collect()
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(Some(directory.path())).unwrap();
        let (first, _) = put(&catalog, 1.0).unwrap();
        let (second, persisted) = put(&catalog, 2.0).unwrap();
        assert!(persisted && first.version != second.version);
        assert_eq!(files(directory.path()), ["mine.toml"]);
        let again = Catalog::open(Some(directory.path())).unwrap();
        assert_eq!(again.get("mine").unwrap().version, second.version);
    }

    /// Only what the directory says after the loss of power survives it: it is opened, to be synced, after the file has its
    /// name.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_directory_is_synced_after_the_file_has_its_name() {
        use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(Some(directory.path())).unwrap();
        let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, directory.path(), WatchFlags::MOVED_TO | WatchFlags::OPEN).unwrap();
        put(&catalog, 1.0).unwrap();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(watch, &mut buffer);
        let mut seen = Vec::new();
        while let Ok(event) = events.next() {
            seen.push(event.events() & (ReadFlags::MOVED_TO | ReadFlags::OPEN | ReadFlags::ISDIR));
        }
        assert_eq!(seen, [ReadFlags::OPEN, ReadFlags::MOVED_TO, ReadFlags::OPEN | ReadFlags::ISDIR]);
    }

    #[test]
    fn a_rubric_that_could_not_be_written_is_not_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(Some(directory.path())).unwrap();
        let (first, _) = put(&catalog, 1.0).unwrap();
        std::fs::remove_dir_all(directory.path()).unwrap();
        assert!(matches!(put(&catalog, 2.0), Err(CatalogError::Io { .. })));
        assert_eq!(catalog.get("mine").unwrap().version, first.version);
        assert_eq!(catalog.versions("mine"), std::slice::from_ref(&first.version));
    }

    #[test]
    fn a_failed_write_leaves_no_file_behind() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(Some(directory.path())).unwrap();
        // A directory in the place of the file: only the last step fails.
        std::fs::create_dir(directory.path().join("mine.toml")).unwrap();
        assert!(matches!(put(&catalog, 1.0), Err(CatalogError::Io { .. })));
        assert!(catalog.get("mine").is_none());
        assert_eq!(files(directory.path()), ["mine.toml"]);
    }

    #[test]
    fn the_file_is_that_of_the_current_version_however_many_put_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(Some(directory.path())).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let catalog = &catalog;
                scope.spawn(move || (1..=8).for_each(|n| _ = put(catalog, f64::from(writer * 8 + n)).unwrap()));
            }
        });
        let again = Catalog::open(Some(directory.path())).unwrap();
        assert_eq!(again.get("mine").unwrap().version, catalog.get("mine").unwrap().version);
    }

    #[test]
    fn hidden_files_are_no_rubrics() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".mine.toml"), text(1.0)).unwrap();
        std::fs::write(directory.path().join(".#mine.toml"), [0xff]).unwrap();
        let catalog = Catalog::open(Some(directory.path())).unwrap();
        assert!(catalog.get("mine").is_none());
    }
}
