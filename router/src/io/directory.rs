//! Directories made on the way to a file: whoever made them takes them away again when nothing came of it.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The directories that were not there before, innermost first; when dropped, those that are empty are removed.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// Makes the directory and what is missing above it.
    pub(super) fn ensure(dir: &Path, mode: u32) -> io::Result<Self> {
        let missing = |dir: &&Path| !dir.as_os_str().is_empty() && fs::symlink_metadata(dir).is_err();
        let made = Self(dir.ancestors().take_while(missing).map(Path::to_owned).collect());
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
        Ok(made)
    }

    /// They stay, empty or not.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in &self.0 {
            // One that is not empty is in use.
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testing::Directory;

    #[test]
    fn what_was_made_goes_again_unless_it_is_used_or_kept() {
        let root = Directory::new();
        let inner = root.path().join("a/b");
        drop(Made::ensure(&inner, 0o700).unwrap());
        assert!(!root.path().join("a").exists() && root.path().exists());

        let made = Made::ensure(&inner, 0o700).unwrap();
        fs::write(root.path().join("a/file"), "").unwrap();
        drop(made);
        assert!(!inner.exists() && root.path().join("a/file").exists());

        let mut made = Made::ensure(&inner, 0o700).unwrap();
        made.keep();
        drop(made);
        assert!(inner.exists());
    }
}
