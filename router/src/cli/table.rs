//! Columns that line up, for terminals: as wide as their widest cell, two blanks between, no lines drawn.
//!
//! A row may carry a note: text that belongs to it but to no column, printed under it, indented and wrapped.

/// What every line is indented by.
const INDENT: &str = "  ";
/// What a note is indented by.
const NOTE: &str = "      ";
/// Where notes are wrapped.
const WIDTH: usize = 80;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows under a head.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    head: [(&'static str, Side); N],
    rows: Vec<([String; N], Option<String>)>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [(&'static str, Side); N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N], note: Option<String>) {
        self.rows.push((cells.map(|cell| clean(&cell)), note.map(|note| clean(&note))));
    }

    pub(super) fn render(&self) -> String {
        let head = self.head.map(|(name, _)| name.to_owned());
        let cells = || self.rows.iter().map(|(cells, _)| cells).chain([&head]);
        let widths: [usize; N] = std::array::from_fn(|column| {
            cells().map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        });
        let mut text = self.line(&head, &widths);
        for (cells, note) in &self.rows {
            text.push_str(&self.line(cells, &widths));
            if let Some(note) = note {
                text.push_str(&wrapped(note, NOTE));
            }
        }
        text
    }

    fn line(&self, cells: &[String; N], widths: &[usize; N]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, side)) in cells.iter().zip(widths).zip(&self.head) {
            line.push_str("  ");
            line.push_str(&match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
        }
        format!("{}\n", line.trim_end())
    }
}

/// Names and what they stand for, one pair a line; long values wrap under themselves.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in pairs {
        let under = format!("{INDENT}{:width$}  ", "");
        let value = wrapped(&clean(value), &under);
        text.push_str(&format!("{INDENT}{name:<width$}  {}", &value[under.len()..]));
    }
    text
}

/// Words in lines of at most 80 columns, each indented; a word that is longer has its own line.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty()
            && indent.chars().count() + line.chars().count() + 1 + word.chars().count() > WIDTH
        {
            lines.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push_str(&format!("{indent}{line}\n"));
    lines
}

/// Names come from other hosts: none of them may move the cursor or colour the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_notes_stand_under_their_row() {
        let mut table = Table::new([("NAME", Side::Left), ("MTU", Side::Right)]);
        table.row(["host1".to_owned(), "1424".to_owned()], Some("a note".to_owned()));
        table.row(["küche".to_owned(), "9".to_owned()], None);
        assert_eq!(table.render(), "  NAME    MTU\n  host1  1424\n      a note\n  küche     9\n");
    }

    #[test]
    fn what_a_peer_calls_itself_cannot_move_the_cursor() {
        let mut table = Table::new([("NAME", Side::Left)]);
        table.row(["a\x1b[2Jb\nc".to_owned()], None);
        assert_eq!(table.render(), "  NAME\n  a?[2Jb?c\n");
    }

    #[test]
    fn long_text_is_wrapped_at_eighty_columns() {
        let text = wrapped(&"word ".repeat(40), NOTE);
        assert!(text.lines().all(|line| line.len() <= 80 && line.starts_with(NOTE)));
        assert_eq!(text.split_whitespace().count(), 40);
        let lines = pairs(&[("a", "x ".repeat(60)), ("long", "y".to_owned())]);
        assert!(lines.starts_with("  a     x x"));
        assert!(lines.ends_with("\n  long  y\n"));
        assert!(lines.lines().all(|line| line.len() <= 80));
    }
}
