//! Files that are on the disk, whole, when it is said that they are written. In: paths, bytes. Out: the error of the system, to
//! which whoever asked adds what the file is. Knows no format.
//!
//! A file that is written beside its place and renamed has its old or its new content at any time, also after the loss of power;
//! the new one once both have returned.

use std::fs::File;
use std::io::{ErrorKind, Result, Write};
use std::path::Path;

/// Writes a file, which is on the disk when this returns. Its name may not be: see [`rename`].
///
/// # Errors
/// Why it could not be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a file or a directory, which is on the disk, another name in its directory, and puts the name on the disk.
///
/// # Errors
/// Why it has the old name, or the new one may be lost with the power.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(directory)?.sync_all() {
        // A file system that cannot do that is taken as it is.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, beside) = (folder.path().join("file"), folder.path().join("file.new"));
        for content in ["old", "new"] {
            write(&beside, content.as_bytes()).unwrap();
            rename(&beside, &path).unwrap();
            assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), beside.exists()), (content, false));
        }
        assert!(rename(&beside, &path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }
}
