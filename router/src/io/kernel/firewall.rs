//! What the host's firewall refuses us, said once in the log and whenever doctor asks.

use weft_api::DoctorLine;
use weft_fastpath::Error;

/// What could not be had, as it was last heard.
#[derive(Debug, Default)]
pub(super) struct Firewall {
    unmet: Vec<Error>,
}

impl Firewall {
    /// Takes over what could not be had now.
    pub(super) fn hear(&mut self, unmet: &[Error]) {
        for error in unmet.iter().filter(|error| !self.unmet.contains(error)) {
            tracing::warn!(%error, "the host's firewall is not as it should be");
        }
        self.unmet = unmet.to_vec();
    }

    /// The same for people.
    pub(super) fn lines(&self) -> Vec<DoctorLine> {
        let advice =
            "containers of this host may not get through, or may send what is not theirs; it is tried again";
        if self.unmet.is_empty() {
            return vec![DoctorLine::fine("firewall", "the host's firewall lets containers through")];
        }
        self.unmet.iter().map(|error| DoctorLine::error("firewall", error.to_string(), advice)).collect()
    }
}
