//! One step from the table that stands to the one that is wanted, printable.
//!
//! All steps of one plan go to the kernel in one transaction: all of them happen, or none.

use std::collections::BTreeSet;
use std::fmt;

use super::{Element, Table};

/// How many elements a line for people names.
const SHOWN: usize = 8;

/// A change to one table of ours; `what` is what it is to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// Writes the whole table where there is none.
    Create {
        /// The table, to people.
        what: &'static str,
        /// The table.
        table: Table,
        /// What is in it, to people.
        summary: String,
    },
    /// Writes the whole table in place of what stands.
    Replace {
        /// The table, to people.
        what: &'static str,
        /// The table.
        table: Table,
        /// What was not right.
        why: String,
    },
    /// Adds elements to a set.
    Add {
        /// The table, to people.
        what: &'static str,
        /// The set.
        set: String,
        /// The elements.
        elements: BTreeSet<Element>,
    },
    /// Takes elements from a set.
    Remove {
        /// The table, to people.
        what: &'static str,
        /// The set.
        set: String,
        /// The elements.
        elements: BTreeSet<Element>,
    },
    /// Removes the table.
    Delete {
        /// The table, to people.
        what: &'static str,
    },
}

impl fmt::Display for TableChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { what, summary, .. } => write!(f, "create the {what}: {summary}"),
            Self::Replace { what, why, .. } => write!(f, "replace the {what}: {why}"),
            Self::Add { what, set, elements } => write!(f, "{what}: add to {set}: {}", Few(elements)),
            Self::Remove { what, set, elements } => {
                write!(f, "{what}: remove from {set}: {}", Few(elements))
            }
            Self::Delete { what } => write!(f, "delete the {what}"),
        }
    }
}

/// The first few elements, and how many there are besides.
struct Few<'a>(&'a BTreeSet<Element>);

impl fmt::Display for Few<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, element) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{element}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
