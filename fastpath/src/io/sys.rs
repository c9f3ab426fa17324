//! The system calls for which there is no safe wrapper: four ioctls, two socket options, a packet socket bound, one
//! descriptor adopted.

use std::ffi::c_int;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use netlink_sys::TokioSocket;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;

/// `ETH_SS_FEATURES`: the set of strings that names device features.
const SET_OF_FEATURES: u32 = 4;
const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
/// `ETH_GSTRING_LEN`.
const STRING: usize = 32;
/// More features than any kernel has; bounds what we allocate on its word.
const FEATURE_LIMIT: usize = 4096;
/// `SIOCGSKNS`: the network namespace of a socket.
const SOCKET_NAMESPACE: u32 = 0x894c;
/// `NS_GET_NSTYPE`: what kind of namespace a descriptor is.
const NAMESPACE_TYPE: u32 = 0xb703;

/// A set of device features, by number.
pub(super) struct FeatureBits(Vec<u32>);

impl FeatureBits {
    /// Whether a feature is in the set.
    pub(super) fn get(&self, feature: usize) -> bool {
        self.0.get(feature / 32).is_some_and(|block| block >> (feature % 32) & 1 == 1)
    }
}

/// What a device says of its features.
pub(super) struct Features {
    /// Those that can be switched.
    pub(super) available: FeatureBits,
    /// Those that somebody wants on.
    pub(super) requested: FeatureBits,
    /// Those that are on.
    pub(super) active: FeatureBits,
}

/// The names of all features this kernel knows; a feature's number is its place.
pub(super) fn feature_names(socket: BorrowedFd<'_>, device: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: cmd, reserved, sset_mask (two words), data[1]
    let mask = 1u64 << SET_OF_FEATURES;
    let [low, high] = halves(mask);
    let mut info = vec![GET_SET_INFO, 0, low, high, 0];
    ethtool(socket, device, &mut info)?;
    let count = info.get(4).and_then(|count| usize::try_from(*count).ok()).unwrap_or(0);
    if count == 0 || count > FEATURE_LIMIT {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    // struct ethtool_gstrings: cmd, string_set, len, data[len * 32]
    let mut strings = vec![GET_STRINGS, SET_OF_FEATURES, 0];
    strings.resize(3 + count * STRING / size_of::<u32>(), 0);
    ethtool(socket, device, &mut strings)?;
    let bytes: Vec<u8> = strings.iter().skip(3).flat_map(|word| word.to_ne_bytes()).collect();
    let text = |raw: &[u8]| raw.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    Ok(bytes.chunks_exact(STRING).map(text).collect())
}

/// Reads the features of a device, `count` being how many the kernel knows.
pub(super) fn features(socket: BorrowedFd<'_>, device: &str, count: usize) -> io::Result<Features> {
    // struct ethtool_gfeatures: cmd, size, { available, requested, active, never_changed }[size]
    let blocks = count.div_ceil(32);
    let mut words = vec![GET_FEATURES, u32::try_from(blocks).map_err(io::Error::other)?];
    words.resize(2 + 4 * blocks, 0);
    ethtool(socket, device, &mut words)?;
    let column = |at: usize| FeatureBits(words.iter().skip(2 + at).step_by(4).copied().collect());
    Ok(Features { available: column(0), requested: column(1), active: column(2) })
}

/// Switches the chosen features of a device, `count` being how many the kernel knows.
pub(super) fn set_features(
    socket: BorrowedFd<'_>,
    device: &str,
    count: usize,
    chosen: &[usize],
    on: bool,
) -> io::Result<()> {
    // struct ethtool_sfeatures: cmd, size, { valid, requested }[size]
    let blocks = count.div_ceil(32);
    let mut words = vec![SET_FEATURES, u32::try_from(blocks).map_err(io::Error::other)?];
    words.resize(2 + 2 * blocks, 0);
    for feature in chosen.iter().filter(|feature| **feature < count) {
        let (block, bit) = (2 + 2 * (feature / 32), 1 << (feature % 32));
        words[block] |= bit;
        words[block + 1] |= if on { bit } else { 0 };
    }
    ethtool(socket, device, &mut words)
}

fn halves(mask: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = mask.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// The index of an interface, in the socket's namespace.
pub(super) fn index(socket: BorrowedFd<'_>, device: &str) -> io::Result<u32> {
    let mut request = request(device)?;
    // SAFETY: `request` outlives the call; the kernel reads the name and writes one number into it.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it is the index that stands in the union.
    u32::try_from(unsafe { request.ifr_ifru.ifru_ifindex }).map_err(io::Error::other)
}

/// A request about an interface, all zero but for its name.
fn request(device: &str) -> io::Result<libc::ifreq> {
    if device.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: an all-zero ifreq is a valid one (an empty name and a null pointer).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    Ok(request)
}

/// Has the kernel throw away what a filter (in its classic machine language) does not accept.
pub(super) fn filter(socket: &impl AsRawFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: `program` and what it points to outlive the call, `len` says how many instructions there are, and the
    // kernel copies them and writes nothing back.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Binds a packet socket to one interface and one kind of frame.
pub(super) fn bind_packet(socket: BorrowedFd<'_>, index: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: `address` outlives the call and `length` says how large it is.
    let status = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One `SIOCETHTOOL`. The callers above size `words` as the structure of the command in its first word says.
fn ethtool(socket: BorrowedFd<'_>, device: &str, words: &mut [u32]) -> io::Result<()> {
    let mut request = request(device)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: `request` outlives the call and names at most 15 bytes, so it ends in zero; `ifru_data` points to
    // `words`, mutable and aligned to 4, with room for all that the kernel writes for its command: one word per
    // bit of the mask, 32 bytes per feature, or as many blocks as its `size` field says.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The network namespace a socket belongs to.
pub(super) fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument and touches no memory of ours.
    let descriptor = unsafe { libc::ioctl(socket.as_raw_fd(), SOCKET_NAMESPACE as _) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether a descriptor is a network namespace.
pub(super) fn is_network_namespace(descriptor: BorrowedFd<'_>) -> bool {
    // SAFETY: the request takes no argument and touches no memory of ours; other files answer ENOTTY.
    let kind = unsafe { libc::ioctl(descriptor.as_raw_fd(), NAMESPACE_TYPE as _) };
    kind == libc::CLONE_NEWNET
}

/// Whether a descriptor is a route netlink socket.
pub(super) fn is_route_netlink(descriptor: BorrowedFd<'_>) -> bool {
    let is = |option, wanted| socket_option(descriptor, option).is_ok_and(|value| value == wanted);
    is(libc::SO_DOMAIN, libc::AF_NETLINK) && is(libc::SO_PROTOCOL, libc::NETLINK_ROUTE)
}

fn socket_option(socket: BorrowedFd<'_>, option: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: `value` and `length` are ours, outlive the call, and `length` says how large `value` is.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Takes a socket into the runtime.
pub(super) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always names the same open descriptor, until it is dropped with its registration.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Takes a netlink socket into the runtime.
pub(super) fn netlink_socket(socket: OwnedFd) -> io::Result<TokioSocket> {
    // The library's constructor panics where one of these fails, so they are tried out first.
    let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
    fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // SAFETY: the clone is owned by the registration, which is dropped, and it closed, on the spot.
    drop(unsafe { AsyncFd::register(socket.try_clone()?) }?);
    // SAFETY: we give up our ownership with `into_raw_fd`, so the new owner is the only one.
    Ok(unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) })
}
