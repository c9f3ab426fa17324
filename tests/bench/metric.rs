//! The figures there are: what each is called, its unit, and which way is better.

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// The larger.
    Higher,
    /// The smaller.
    Lower,
}

/// One figure of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// TCP, one stream.
    Tcp1,
    /// TCP, four streams.
    Tcp4,
    /// TCP, one stream, underlay without segmentation offload.
    WireTcp1,
    /// TCP, four streams, underlay without segmentation offload.
    WireTcp4,
    /// Processor time of the whole machine for a gigabyte, one stream.
    Cpu,
    /// Processor time of the tunnel's own processes, both ends, for a gigabyte, one stream.
    DaemonCpu,
    /// 64-byte datagrams a second at no more than 1 % loss.
    Packets,
    /// Round trip, ends on two cores, median.
    RttTwoP50,
    /// Round trip, ends on two cores, 99th percentile.
    RttTwoP99,
    /// Round trip, ends on one core, median.
    RttOneP50,
    /// Round trip, ends on one core, 99th percentile.
    RttOneP99,
    /// `weft attach`, whole process, median.
    AttachP50,
    /// `weft attach`, whole process, 99th percentile.
    AttachP99,
    /// `weft detach`, whole process, median.
    DetachP50,
    /// `weft detach`, whole process, 99th percentile.
    DetachP99,
    /// Addresses allocated one after the other.
    Allocations,
    /// CNI ADD, whole process, median.
    AddP50,
    /// CNI ADD, whole process, 99th percentile.
    AddP99,
    /// CNI DEL, whole process, median.
    DelP50,
    /// CNI DEL, whole process, 99th percentile.
    DelP99,
}

impl Metric {
    /// What is measured of every tunnel, in the order it is shown: first the streams, then the small packets.
    pub(crate) const STREAMS: [Self; 6] =
        [Self::Tcp1, Self::Tcp4, Self::WireTcp1, Self::WireTcp4, Self::Cpu, Self::DaemonCpu];
    /// See [`Self::STREAMS`].
    pub(crate) const PACKETS: [Self; 5] =
        [Self::Packets, Self::RttTwoP50, Self::RttTwoP99, Self::RttOneP50, Self::RttOneP99];
    /// What is measured of attaching.
    pub(crate) const ATTACH: [Self; 5] =
        [Self::AttachP50, Self::AttachP99, Self::DetachP50, Self::DetachP99, Self::Allocations];
    /// What is measured of CNI plugins.
    pub(crate) const PODS: [Self; 4] = [Self::AddP50, Self::AddP99, Self::DelP50, Self::DelP99];

    /// The name in the JSON file.
    pub(crate) fn key(self) -> &'static str {
        self.row().0
    }

    /// The heading in the table.
    pub(crate) fn title(self) -> &'static str {
        self.row().1
    }

    /// What a 1 means.
    pub(crate) fn unit(self) -> &'static str {
        self.row().2
    }

    /// Which way is better.
    pub(crate) fn better(self) -> Better {
        self.row().3
    }

    fn row(self) -> (&'static str, &'static str, &'static str, Better) {
        use Better::{Higher, Lower};
        match self {
            Self::Tcp1 => ("tcp_1", "TCP 1", "Gbit/s", Higher),
            Self::Tcp4 => ("tcp_4", "TCP 4", "Gbit/s", Higher),
            Self::WireTcp1 => ("wire_tcp_1", "wire TCP 1", "Gbit/s", Higher),
            Self::WireTcp4 => ("wire_tcp_4", "wire TCP 4", "Gbit/s", Higher),
            Self::Cpu => ("cpu", "CPU", "s/GB", Lower),
            Self::DaemonCpu => ("daemon_cpu", "daemon CPU", "s/GB", Lower),
            Self::Packets => ("packets", "64 B UDP", "kpps", Higher),
            Self::RttTwoP50 => ("rtt_two_cores_p50", "RTT 2 cores p50", "us", Lower),
            Self::RttTwoP99 => ("rtt_two_cores_p99", "p99", "us", Lower),
            Self::RttOneP50 => ("rtt_one_core_p50", "RTT 1 core p50", "us", Lower),
            Self::RttOneP99 => ("rtt_one_core_p99", "p99", "us", Lower),
            Self::AttachP50 => ("attach_p50", "attach p50", "ms", Lower),
            Self::AttachP99 => ("attach_p99", "attach p99", "ms", Lower),
            Self::DetachP50 => ("detach_p50", "detach p50", "ms", Lower),
            Self::DetachP99 => ("detach_p99", "detach p99", "ms", Lower),
            Self::AddP50 => ("add_p50", "ADD p50", "ms", Lower),
            Self::AddP99 => ("add_p99", "ADD p99", "ms", Lower),
            Self::DelP50 => ("del_p50", "DEL p50", "ms", Lower),
            Self::DelP99 => ("del_p99", "DEL p99", "ms", Lower),
            Self::Allocations => ("allocations", "allocations", "per second", Higher),
        }
    }
}
