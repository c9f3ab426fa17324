//! Every corpus of `tests/fuzz`, replayed on stable through the very bodies that libFuzzer drives.
//!
//! What a fuzzer once found stays in the corpus of its target, and so here. `WEFT_CORPUS=write` grows the corpora
//! from what real machines say: run once when a format changed.

#[expect(unreachable_pub, reason = "public where it is a crate of its own: for the fuzz targets")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
fn every_corpus_passes_through_its_target() -> Result<()> {
    for (target, body, seeds) in fuzz::TARGETS {
        let dir = corpus(target);
        if std::env::var("WEFT_CORPUS").is_ok_and(|wish| wish == "write") {
            fs::create_dir_all(&dir)?;
            for (number, bytes) in seeds().iter().enumerate() {
                fs::write(dir.join(format!("real-{number:02}")), bytes)?;
            }
        }
        let files = fs::read_dir(&dir).with_context(|| format!("the corpus of {target}"))?;
        let mut count = 0;
        for file in files {
            let path = file?.path();
            let bytes = fs::read(&path)?;
            std::panic::catch_unwind(|| body(&bytes))
                .map_err(|_| anyhow::anyhow!("{} breaks {target}", path.display()))?;
            count += 1;
        }
        ensure!((1..=30).contains(&count), "{target} has a corpus of {count} files, not 1 to 30");
    }
    Ok(())
}

#[test]
fn what_real_machines_say_passes_through_every_target() {
    for (target, _, seeds) in fuzz::TARGETS {
        let seeds = seeds();
        assert!(!seeds.is_empty(), "{target} has nothing to grow from");
        for bytes in seeds {
            fuzz::run(target, &bytes);
        }
    }
}
