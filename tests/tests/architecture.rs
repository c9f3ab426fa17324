//! The house rules that a compiler does not know: which crate may lean on which, where the operating system may be
//! touched, and how files are named, opened and kept small.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};

/// The licences a dependency may have; `deny.toml` has the same list.
const LICENCES: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "CDLA-Permissive-2.0",
];

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate stands in the workspace")
}

fn metadata() -> Result<Metadata> {
    let manifest = root()?.join("Cargo.toml");
    let mut command = MetadataCommand::new();
    let options = vec!["--offline".to_owned(), "--locked".to_owned()];
    Ok(command.manifest_path(manifest).features(CargoOpt::AllFeatures).other_options(options).exec()?)
}

/// A source file: where it stands below the root, and what it says.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines that run in the product: without comments, and without the test module that closes a file.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_start()));
        lines.take_while(|(_, line)| *line != "#[cfg(test)]").filter(|(_, line)| !line.starts_with("//"))
    }

    fn is_product(&self) -> bool {
        let crates = ["gossip/src/", "router/src/", "router/api/src/", "fastpath/src/", "cni/src/"];
        let test = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        crates.iter().any(|folder| self.path.starts_with(folder)) && !test
    }

    /// Whether this file may touch the operating system: `io/`, the composition roots, and the blocking client.
    fn is_shell(&self) -> bool {
        let folder = ["/io/", "/cli/", "/daemon/"].iter().any(|folder| self.path.contains(folder));
        let root =
            ["/main.rs", "/daemon.rs", "/io.rs", "/cli.rs"].iter().any(|name| self.path.ends_with(name));
        let client = self.path.starts_with("router/api/src/");
        folder || root || client
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn sources() -> Result<Vec<Source>> {
    let root = root()?;
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    ensure!(paths.len() > 20, "only {} source files: looking in the wrong place", paths.len());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path)?;
        Ok(Source { path: path.strip_prefix(root)?.to_string_lossy().into_owned(), text })
    };
    paths.into_iter().map(read).collect()
}

fn none(what: &str, offenders: &[String]) -> Result<()> {
    ensure!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
    Ok(())
}

#[test]
fn crates_lean_only_on_those_they_may() -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("weft-gossip", &[][..]),
        ("weft-fastpath", &[]),
        ("weft-api", &[]),
        ("weft-router", &["weft-gossip", "weft-fastpath", "weft-api"]),
        ("weft-cni", &["weft-api"]),
        ("weft-tests", &["weft-gossip", "weft-fastpath", "weft-api", "weft-router", "weft-cni"]),
        ("weft-scale", &["weft-gossip"]),
        ("weft-examples", &["weft-gossip", "weft-fastpath", "weft-api", "weft-router", "weft-tests"]),
    ]);
    let metadata = metadata()?;
    let members = metadata.workspace_packages();
    let ours: Vec<String> = members.iter().map(|package| package.name.to_string()).collect();
    ensure!(ours.len() >= 6, "the workspace has only {ours:?}");
    let mut wrong = Vec::new();
    for package in &members {
        let may =
            allowed.get(package.name.as_str()).with_context(|| format!("no rule for {}", package.name))?;
        let leans = package.dependencies.iter().map(|dependency| dependency.name.clone());
        for on in leans.filter(|name| ours.contains(name) && *name != package.name.as_str()) {
            if !may.contains(&on.as_str()) {
                wrong.push(format!("{} → {on}", package.name));
            }
        }
    }
    none("arrows that the architecture does not have", &wrong)
}

#[test]
fn the_client_library_brings_no_runtime() -> Result<()> {
    let metadata = metadata()?;
    let mut wrong = Vec::new();
    for package in metadata
        .workspace_packages()
        .iter()
        .filter(|package| ["weft-api", "weft-cni"].contains(&package.name.as_str()))
    {
        let heavy =
            package.dependencies.iter().filter(|one| ["tokio", "axum", "hyper"].contains(&one.name.as_str()));
        wrong.extend(heavy.map(|one| format!("{} → {}", package.name, one.name)));
    }
    none("a runtime where none belongs", &wrong)
}

#[test]
fn the_operating_system_is_touched_only_in_io_and_the_composition_roots() -> Result<()> {
    const FORBIDDEN: [&str; 18] = [
        "tokio::",
        "Instant::now",
        "SystemTime::now",
        "std::thread",
        "thread::spawn",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "std::fs",
        "async fn",
        ".await",
        "Mutex<",
        "RwLock<",
        "rand::rng()",
        "HashMap<",
        "HashSet<",
        "std::process::Command",
    ];
    let mut wrong = Vec::new();
    for source in sources()?.iter().filter(|source| source.is_product() && !source.is_shell()) {
        for (number, line) in source.product_lines() {
            let found = FORBIDDEN.iter().filter(|word| line.contains(**word));
            wrong.extend(found.map(|word| format!("{}:{number}: {word}", source.path)));
        }
    }
    none("the law of io/ is broken", &wrong)
}

/// Where the product may start a program, and why no other way is good enough.
const PROGRAMS: [(&str, &str); 2] = [
    (
        "cni/src/io/delegate.rs",
        "the CNI specification has a main plugin start the IPAM plugin that its list names",
    ),
    (
        "fastpath/src/io/legacy.rs",
        "only iptables masters the form in which the kernel takes its legacy tables",
    ),
];

/// Whether a text imports, names or makes another process, however it is spelt and wherever the line breaks fall.
fn starts_programs(product: &str) -> bool {
    const WORDS: [&str; 6] = ["fork(", "execv", "posix_spawn", "popen(", "libc::system", "CommandExt"];
    let dense: String = product.split_whitespace().collect();
    let named = dense.match_indices("process::").any(|(at, found)| {
        let rest = &dense[at + found.len()..];
        let list = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(list, _)| list);
        let one = |name: &str| name == "Command" || name == "*" || name.starts_with("Commandas");
        let first =
            rest.split(|c: char| !c.is_alphanumeric() && c != '*' && c != '_').next().unwrap_or_default();
        one(first) || list.split(',').any(one)
    });
    named || WORDS.iter().any(|word| dense.contains(word))
}

#[test]
fn the_product_starts_no_child_process_but_the_two_it_must() -> Result<()> {
    let mut wrong = Vec::new();
    let mut exempt = Vec::new();
    for source in sources()?.iter().filter(|source| source.is_product()) {
        let lines: Vec<&str> = source.product_lines().map(|(_, line)| line).collect();
        if starts_programs(&lines.join("\n")) {
            let argued = PROGRAMS.iter().any(|(path, _)| *path == source.path);
            if argued { &mut exempt } else { &mut wrong }.push(source.path.clone());
        }
    }
    none("a child process in the product", &wrong)?;
    let argued = PROGRAMS.map(|(path, _)| path.to_owned());
    ensure!(exempt == argued, "exemptions that nobody needs: only {exempt:?} start programs");
    Ok(())
}

#[test]
fn a_child_process_is_seen_in_every_spelling() {
    for spelling in [
        "std::process::Command::new(\"ip\")",
        "use std::process::Command;",
        "use std::{io, process::{Child,\n    Command, Stdio}};",
        "use std::process::{self,Command as Program};",
        "use tokio::process::Command;",
        "use std::process::*;",
        "let child = process :: Command :: new(program);",
        "match unsafe { libc::fork() } {",
        "nix::unistd::execve(&path, &words, &words)",
    ] {
        assert!(starts_programs(spelling), "{spelling}");
    }
    for innocent in [
        "use std::process::ExitCode;",
        "use std::process::{self, ExitCode, Stdio};",
        "process::id()",
        "clap::Command::new(\"weft\")",
        "enum Command { Table }",
    ] {
        assert!(!starts_programs(innocent), "{innocent}");
    }
}

#[test]
fn every_file_opens_with_why_it_exists() -> Result<()> {
    let opens = |source: &Source| {
        let first = source.text.lines().find(|line| !line.trim().is_empty());
        first.is_some_and(|line| line.starts_with("//!") && line.len() > 20)
    };
    let wrong: Vec<String> =
        sources()?.iter().filter(|source| !opens(source)).map(|source| source.path.clone()).collect();
    none("files without a module doc on the first line", &wrong)
}

#[test]
fn files_have_plain_names_and_stand_beside_their_folder() -> Result<()> {
    const FORBIDDEN: [&str; 8] =
        ["mod.rs", "util.rs", "utils.rs", "common.rs", "helpers.rs", "misc.rs", "types.rs", "manager.rs"];
    let named = |source: &Source| FORBIDDEN.iter().any(|name| source.path.ends_with(&format!("/{name}")));
    let wrong: Vec<String> =
        sources()?.iter().filter(|source| named(source)).map(|source| source.path.clone()).collect();
    none("names that say nothing", &wrong)
}

#[test]
fn no_file_grows_beyond_six_hundred_lines() -> Result<()> {
    let long = |source: &Source| (source.text.lines().count() > 600).then(|| source.path.clone());
    let wrong: Vec<String> = sources()?.iter().filter_map(long).collect();
    none("files in which two things live", &wrong)
}

#[test]
fn unsafe_code_lives_only_in_sys() -> Result<()> {
    let mut wrong = Vec::new();
    for source in sources()?.iter().filter(|source| !source.path.ends_with("/sys.rs")) {
        let lines = source.text.lines().enumerate();
        let code = lines.filter(|(_, line)| !line.trim_start().starts_with("//") && !line.contains('"'));
        let found = code.filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe fn"));
        wrong.extend(found.map(|(index, _)| format!("{}:{}", source.path, index + 1)));
    }
    none("unsafe outside sys.rs", &wrong)
}

#[test]
fn every_dependency_has_a_licence_we_may_use() -> Result<()> {
    let metadata = metadata()?;
    ensure!(metadata.packages.len() > 50, "only {} packages", metadata.packages.len());
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let expression = package.license.clone().unwrap_or_default();
        if !satisfied(&expression) {
            wrong.push(format!("{} {}: {expression:?}", package.name, package.version));
        }
    }
    none("licences outside the list", &wrong)
}

/// Whether an SPDX expression can be met with the allowed licences: any branch of OR, all of AND.
fn satisfied(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let words = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    // OR inside brackets beside AND does occur ("(MIT OR Apache-2.0) AND Unicode-3.0"): each AND part needs one good branch.
    flat.split(" AND ").all(|all| all.split(" OR ").any(|one| LICENCES.contains(&words(one).as_str())))
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    assert!(satisfied("MIT OR Apache-2.0"));
    assert!(satisfied("MIT/Apache-2.0"));
    assert!(satisfied("(MIT OR GPL-3.0) AND Unicode-3.0"));
    assert!(satisfied("GPL-2.0 OR MIT"));
    assert!(!satisfied("GPL-3.0-or-later"));
    assert!(!satisfied("MIT AND GPL-3.0"));
    assert!(!satisfied(""));
}
