//! Files of a run that are on the disk, whole, when it is said that they are written. In: a path, bytes. Knows no format.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::TrainError;

/// Writes a file that nobody reads before all of it is on the disk.
///
/// # Errors
/// Why it could not be written.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let write = || {
        let mut out = File::create(path)?;
        out.write_all(bytes)?;
        out.sync_all()
    };
    write().map_err(|error: std::io::Error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => TrainError::file(
            path,
            format!("{error}; the checkpoint before this one is whole: free some space and resume the run"),
        ),
        _ => TrainError::file(path, error),
    })
}

/// Gives a file new content, of which it has the old or the new one at any time.
///
/// # Errors
/// Why it could not be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let beside = path.with_extension("writing");
    write(&beside, bytes)?;
    std::fs::rename(&beside, path).map_err(|error| TrainError::file(path, error))
}
