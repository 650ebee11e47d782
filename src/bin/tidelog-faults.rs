//! `tidelog` with places where a test can make its storage fail or die (feature `faults`). Never shipped.

fn main() -> std::process::ExitCode {
    tidelog::cli::main()
}
