//! Where `gradus score` writes its results. In: results, one for each line; out: a file that has its name once all of them
//! are in it, or standard output, a pipe or a device, which are written as they come. Knows no trajectory.

use std::fs::{File, Metadata, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// What results are written to.
#[derive(Debug)]
pub(super) struct Output {
    file: BufWriter<File>,
    /// Nothing for what is no regular file: there is nothing to be kept whole.
    names: Option<Names>,
    /// Whether nobody reads them any more.
    closed: bool,
}

/// The names of a file before and after all is in it.
#[derive(Debug)]
struct Names {
    partial: PathBuf,
    whole: PathBuf,
}

impl Output {
    /// Opens what `path` names, `-` for standard output; `input` is what is read, which must be another file. What stands in
    /// a file is gone when all has been written, not before.
    pub(super) fn open(path: &Path, input: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write {}", path.display());
        if path == Path::new("-") {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().with_context(cannot)?;
            return Ok(Self::of(stdout.into(), None));
        }
        let input = if input == Path::new("-") { Path::new("/dev/stdin") } else { input };
        anyhow::ensure!(!is_same(path, input), "--out {} is the file that is read; name another", path.display());
        // A file that may not be written must not be replaced either.
        let old = match File::options().write(true).open(path) {
            Ok(file) if !file.metadata().with_context(cannot)?.is_file() => return Ok(Self::of(file, None)),
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(cannot),
        };
        let Some(whole) = name_to_replace(path) else {
            return File::create(path).with_context(cannot).map(|file| Self::of(file, None));
        };
        let mut partial = whole.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let cannot = || format!("cannot write {}", partial.display());
        anyhow::ensure!(!is_same(&partial, input), "{} would be written over; name another --out", partial.display());
        let file = partial_file(&partial).with_context(cannot)?;
        if let Some(old) = old {
            // Whoever may not read the old results may not read the new ones.
            old.metadata().and_then(|old| file.set_permissions(old.permissions())).with_context(cannot)?;
        }
        Ok(Self::of(file, Some(Names { partial, whole })))
    }

    fn of(file: File, names: Option<Names>) -> Self {
        Self { file: BufWriter::new(file), names, closed: false }
    }

    /// Writes results, each on a line of its own. Where nobody reads them any more, they are gone, which is no error.
    pub(super) fn write<'a>(&mut self, results: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
        for result in results {
            let written = self.file.write_all(result).and_then(|()| self.file.write_all(b"\n"));
            self.wrote(written)?;
        }
        self.flush()
    }

    /// Whether nobody reads what is written.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Ends with what came of the scoring: a file with everything in it gets its name.
    ///
    /// # Errors
    /// That of the scoring, or why the results cannot be kept. Those that there are stay in the partial file.
    pub(super) fn finish(mut self, scored: anyhow::Result<()>) -> anyhow::Result<()> {
        let written = self.flush();
        let Some(Names { partial, whole }) = &self.names else { return scored.and(written) };
        let sync = |()| self.file.get_ref().sync_all().context("the results cannot be put on the disk");
        let kept = || format!("what was scored before is in {}", partial.display());
        scored.and(written).and_then(sync).with_context(kept)?;
        let renamed = std::fs::rename(partial, whole);
        renamed.with_context(|| format!("all results are in {}, not in {}", partial.display(), whole.display()))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let written = self.file.flush();
        self.wrote(written)
    }

    /// What writing gave. Whoever closed the pipe has read enough.
    fn wrote(&mut self, written: std::io::Result<()>) -> anyhow::Result<()> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.context("the results cannot be written to what --out names"),
        }
    }
}

/// The empty file that results are written to at first, which is this process's until it ends. A link, which may lead
/// anywhere, is not followed.
fn partial_file(path: &Path) -> anyhow::Result<File> {
    let id = |data: Metadata| (data.is_file(), data.dev(), data.ino());
    let found = || path.symlink_metadata().map(id);
    if let Ok((is_file, ..)) = found() {
        anyhow::ensure!(is_file, "it is no regular file; remove it, or name another --out");
    }
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    // A file system may have no locks.
    let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    // Whoever had it may have given it its name meanwhile: what is open is then the results of another.
    let same = found()? == id(file.metadata()?);
    anyhow::ensure!(same && !taken, "another run writes it; wait for that, or name another --out");
    file.set_len(0)?;
    Ok(file)
}

/// The name of the file itself, where links lead to it. None for a link that leads to no name, as to a file that was
/// deleted, and for a name that is none.
fn name_to_replace(path: &Path) -> Option<PathBuf> {
    match std::fs::canonicalize(path) {
        Ok(found) => Some(found),
        Err(_) if path.is_symlink() => None,
        Err(_) => path.file_name().map(|_| path.to_owned()),
    }
}

/// Whether two names, links among them, are of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().filter(Metadata::is_file).map(|data| (data.dev(), data.ino()));
    id(one).is_some_and(|found| id(other) == Some(found))
}
