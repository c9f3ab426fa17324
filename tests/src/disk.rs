//! A small disk of its own for one directory, which can be filled, made read-only and freed again.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What fills the disk.
const BALLAST: &str = "ballast";

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts a disk of this size on a directory, which is made.
    ///
    /// # Errors
    /// When this process may not mount.
    pub fn mount(at: &Path, kilobytes: u32) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let options = format!("size={kilobytes}k,mode=0700");
        mount(Some("weft-tests"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("cannot mount {}", at.display()))?;
        Ok(Self { at: at.to_path_buf() })
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    /// When it fails for another reason than that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.at.join(BALLAST))?;
        loop {
            match ballast.write(&[0; 512]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Frees what [`Self::fill`] took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.at.join(BALLAST))?)
    }

    /// Makes it read-only, or writable again, for whoever opens a file from now on.
    ///
    /// # Errors
    /// When this process may not mount.
    pub fn read_only(&self, yes: bool) -> Result<()> {
        if !yes {
            return Ok(umount2(&self.at, MntFlags::MNT_DETACH)?);
        }
        let none: Option<&str> = None;
        mount(Some(&self.at), &self.at, none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &self.at, none, flags, none).context("cannot make it read-only")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A read-only view may lie over it.
        while umount2(&self.at, MntFlags::MNT_DETACH).is_ok() {}
    }
}
