//! The `tidelog` binary: everything it can do is in `tidelog::cli`.

#[cfg(feature = "client")]
fn main() -> std::process::ExitCode {
    tidelog::cli::main()
}

#[cfg(not(feature = "client"))]
fn main() -> std::process::ExitCode {
    eprintln!("tidelog: this binary was built without the feature `client`, which holds the command line.");
    std::process::ExitCode::FAILURE
}
