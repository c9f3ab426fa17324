//! How gossip grows (`make sim`): the meshes that ship, in virtual time, with their real handshakes.
//!
//! ```text
//! weft-scale docs/scale.svg [100 300 1000 …]      peers, or peers/most neighbours of each
//! ```
//!
//! A full mesh of a thousand is half a million handshakes in one process: forty minutes, and seven gigabytes of memory.
//! So every size is kept in `scale.json` beside the picture until it is measured again, and the picture shows all.
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod measure;

mod picture;
mod sys;

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use measure::{Row, measure};

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

/// Five of a hundred pieces are lost while the mesh forms.
const LOSS: f64 = 0.05;

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn size(text: &str) -> Result<(usize, usize)> {
    let (peers, degree) = text.split_once('/').unwrap_or((text, ""));
    let peers: usize =
        peers.parse().with_context(|| format!("{text:?}: a number of peers, such as 300 or 1000/24"))?;
    anyhow::ensure!(peers >= 2, "{text:?}: a mesh has at least two peers");
    Ok((peers, degree.parse().unwrap_or(peers - 1)))
}

fn show(row: &Row) {
    let converged =
        row.converged.map_or_else(|| "not in 60 s".to_owned(), |seconds| format!("{seconds:.2} s"));
    println!(
        "{:>5} {:>6} {:>11} {:>9.0} {:>8.1} {:>6} {:>6.2} {:>8.0} {:>9.0} {:>8.0} {:>7.1} {:>7.0}",
        row.peers,
        row.degree,
        converged,
        row.formed as f64 / 1e3,
        row.slowest * 1e3,
        row.missed,
        row.copies,
        row.change,
        row.loss,
        row.idle,
        mebibytes(row.memory),
        row.took
    );
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let path = words.next().context("where to draw the picture: weft-scale docs/scale.svg [100 300 1000]")?;
    let mut sizes: Vec<String> = words.collect();
    if sizes.is_empty() {
        sizes = ["100", "300", "1000"].map(str::to_owned).to_vec();
    }
    println!(
        "{:>5} {:>6} {:>11} {:>9} {:>8} {:>6} {:>6} {:>8} {:>9} {:>8} {:>7} {:>7}",
        "peers",
        "degree",
        "converged",
        "formed kB",
        "last ms",
        "missed",
        "copies",
        "change B",
        "killed B",
        "idle B/s",
        "MiB",
        "took s"
    );
    let kept = Path::new(&path).with_extension("json");
    let mut rows = known(&kept)?;
    for text in &sizes {
        let (peers, degree) = size(text)?;
        let row = measure(peers, degree, LOSS);
        show(&row);
        rows.retain(|known| (known.peers, known.degree) != (peers, degree));
        rows.push(row);
        rows.sort_by_key(|row| (row.peers, row.degree));
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        write(&kept, &format!("[\n{}\n]\n", lines.join(",\n")))?;
        write(Path::new(&path), &picture::draw(&rows))?;
    }
    Ok(())
}

/// What was measured before.
fn known(path: &Path) -> Result<Vec<Row>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
