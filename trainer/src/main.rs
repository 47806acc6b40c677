//! The `grug-trainer` command.

fn main() -> std::process::ExitCode {
    grug_trainer::cli::main()
}
