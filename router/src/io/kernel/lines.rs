//! What the facts about the kernel mean to people.

use weft_api::DoctorLine;
use weft_fastpath::Facts;

/// Says of each fact whether it is fine, and what to do where it is not.
pub(super) fn facts_lines(facts: &Facts) -> Vec<DoctorLine> {
    let mut lines = Vec::new();
    for (what, there) in [("bridge", facts.bridge), ("veth", facts.veth)] {
        lines.push(if there {
            DoctorLine::fine("kernel", format!("{what} devices can be made"))
        } else {
            DoctorLine::error(
                "kernel",
                format!("{what} devices cannot be made"),
                format!("load the kernel module: modprobe {what}"),
            )
        });
    }
    lines.push(if facts.vxlan {
        DoctorLine::fine("kernel", "vxlan devices can be made")
    } else {
        DoctorLine::warning(
            "kernel",
            "vxlan devices cannot be made",
            "sleeve carries; for fastpath: modprobe vxlan",
        )
    });
    if facts.leftovers.is_empty() {
        lines.push(DoctorLine::fine("leftovers", "no interface of ours is left over"));
    } else {
        let names: Vec<String> = facts.leftovers.iter().map(ToString::to_string).collect();
        lines.push(DoctorLine::warning(
            "leftovers",
            format!("no attachment explains {}", names.join(", ")),
            "remove them with `ip link delete NAME`",
        ));
    }
    lines
}
