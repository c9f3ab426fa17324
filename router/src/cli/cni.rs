//! `weft cni install` and `weft cni uninstall`: put the CNI plugin and its configuration where runtimes look.
//!
//! A runtime may start the plugin, or read the configuration, at any moment: everything appears whole, by a rename, and
//! the configuration last. What somebody else has written is never replaced nor removed. No name is followed as a
//! symbolic link where something is written.

mod conflist;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
};

use anyhow::Context as _;
use weft_api::Response;

use super::{
    Context,
    args::{CniCommand, CniInstall, CniPlaces},
    error::CliError,
};
use crate::exit_code::ExitCode;
use conflist::{Conflist, FILE};

/// The plugin, and its second name as an IPAM-only plugin.
const PLUGIN: &str = "weft-net";
const IPAM: &str = "weft-ipam";
/// A configuration of ours is far shorter.
const LARGEST: u64 = 1 << 20;

pub(super) fn run(context: &mut Context<'_>, command: CniCommand) -> Result<ExitCode, CliError> {
    let lines = match command {
        CniCommand::Install(install) => set_up(&install, &context.socket)?,
        CniCommand::Uninstall(places) => take_away(&places)?,
    };
    context.show(Response::Done(lines))
}

fn set_up(install: &CniInstall, socket: &Path) -> anyhow::Result<Vec<String>> {
    let CniPlaces { bin_dir, conf_dir } = &install.places;
    let source = match &install.from {
        Some(source) => source.clone(),
        None => beside()?,
    };
    for directory in [bin_dir, conf_dir] {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.with_context(|| format!("cannot make the directory {}", directory.display()))?;
    }
    let mut lines = Vec::new();
    for path in [bin_dir.join(PLUGIN), bin_dir.join(IPAM)] {
        let from = if path.ends_with(IPAM) { bin_dir.join(PLUGIN) } else { source.clone() };
        place_program(&from, &path).with_context(|| format!("cannot install {}", path.display()))?;
        lines.push(format!("installed {}", path.display()));
    }
    let there = |plugin: &str| bin_dir.join(plugin).is_file();
    let socket = std::path::absolute(socket).context("the socket's path")?;
    let wanted = Conflist::new(&socket, there("portmap"), there("bandwidth")).text();
    let path = conf_dir.join(FILE);
    let shown = path.display();
    lines.push(match found(&path).with_context(|| format!("cannot read {shown}"))? {
        Found::Nothing => {
            place_text(&wanted, &path).with_context(|| format!("cannot write {shown}"))?;
            format!("wrote {shown}")
        }
        Found::Ours(text) if text == wanted => format!("{shown} is as it should be"),
        Found::Ours(_) => {
            place_text(&wanted, &path).with_context(|| format!("cannot write {shown}"))?;
            format!("brought {shown} up to date")
        }
        Found::Foreign(why) => format!("left {shown} alone: {why}"),
    });
    Ok(lines)
}

fn take_away(places: &CniPlaces) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let path = places.conf_dir.join(FILE);
    // First: without it no runtime starts what is removed next.
    match found(&path).with_context(|| format!("cannot read {}", path.display()))? {
        Found::Nothing => {}
        Found::Ours(_) => remove(&path, &mut lines)?,
        Found::Foreign(why) => lines.push(format!("left {} alone: {why}", path.display())),
    }
    for path in [places.bin_dir.join(IPAM), places.bin_dir.join(PLUGIN)] {
        match fs::symlink_metadata(&path) {
            Ok(file) if file.is_file() => remove(&path, &mut lines)?,
            Ok(_) => lines.push(format!("left {} alone: it is not a plain file", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }
    Ok(lines)
}

fn remove(path: &Path, lines: &mut Vec<String>) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    lines.push(format!("removed {}", path.display()));
    Ok(())
}

/// The plugin that was shipped with this program.
fn beside() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("cannot tell where this program is")?;
    let path = here.with_file_name(PLUGIN);
    anyhow::ensure!(path.is_file(), "no {} beside this program: name it with --from", path.display());
    Ok(path)
}

/// What stands where our configuration goes.
enum Found {
    Nothing,
    /// As some version of us wrote it.
    Ours(String),
    /// Of somebody else, or changed since, and why we think so.
    Foreign(&'static str),
}

fn found(path: &Path) -> io::Result<Found> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Ok(Found::Foreign("it is a symbolic link"));
        }
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(Found::Foreign("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    Ok(if Conflist::is_ours(&text) { Found::Ours(text) } else { Found::Foreign("it was changed") })
}

/// Puts a program in place: under the same inode where that is possible, else as a copy.
fn place_program(from: &Path, to: &Path) -> io::Result<()> {
    let aside = aside(to)?;
    let linked = from.parent() == to.parent() && fs::hard_link(from, &aside.0).is_ok();
    if !linked {
        let mut source = File::open(from)?;
        let mut target = aside.create(0o755)?;
        io::copy(&mut source, &mut target)?;
        // Whatever the umask says: runtimes of other users start it.
        target.set_permissions(fs::Permissions::from_mode(0o755))?;
        target.sync_all()?;
    }
    aside.settle(to)
}

fn place_text(text: &str, to: &Path) -> io::Result<()> {
    let aside = aside(to)?;
    let mut target = aside.create(0o644)?;
    target.write_all(text.as_bytes())?;
    target.set_permissions(fs::Permissions::from_mode(0o644))?;
    target.sync_all()?;
    aside.settle(to)
}

/// A name beside the right one, gone when nothing comes of it.
struct Aside(PathBuf);

fn aside(path: &Path) -> io::Result<Aside> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = Aside(path.with_file_name(format!(".{name}.{}", process::id())));
    match fs::remove_file(&aside.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(aside),
    }
}

impl Aside {
    fn create(&self, mode: u32) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode).custom_flags(libc::O_NOFOLLOW).open(&self.0)
    }

    /// Takes its place, and makes that last.
    fn settle(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)?;
        to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
