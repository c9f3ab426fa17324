//! The `weft` binary: the router daemon and its client.

fn main() -> std::process::ExitCode {
    weft_router::cli::main().into()
}
