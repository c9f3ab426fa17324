//! One step from the filter that stands to the one that is wanted, printable.
//!
//! All steps of one plan go to the kernel in one transaction: all of them happen, or none.

use std::collections::BTreeSet;
use std::fmt;

use super::Filter;
use super::table::Element;

/// How many elements a line for people names.
const SHOWN: usize = 8;

/// A change to the filter of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterChange {
    /// Writes the whole filter where there is none.
    Create {
        /// The filter.
        filter: Filter,
    },
    /// Writes the whole filter in place of what stands.
    Replace {
        /// The filter.
        filter: Filter,
        /// What was not right.
        why: String,
    },
    /// Adds elements to a set.
    Add {
        /// The set.
        set: String,
        /// The elements.
        elements: BTreeSet<Element>,
    },
    /// Takes elements from a set.
    Remove {
        /// The set.
        set: String,
        /// The elements.
        elements: BTreeSet<Element>,
    },
    /// Removes the filter.
    Delete,
}

impl fmt::Display for FilterChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { filter } => {
                let (port, sources) = (filter.vxlan_port, filter.sources.len());
                write!(f, "create the source filter: VXLAN on port {port} from {sources} peers")?;
                match filter.probes.len() {
                    0 => Ok(()),
                    probes => write!(f, ", probes from {probes} more"),
                }
            }
            Self::Replace { why, .. } => write!(f, "replace the source filter: {why}"),
            Self::Add { set, elements } => write!(f, "source filter: add to {set}: {}", Few(elements)),
            Self::Remove { set, elements } => {
                write!(f, "source filter: remove from {set}: {}", Few(elements))
            }
            Self::Delete => f.write_str("delete the source filter"),
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
