//! `estd`: hands over to [`estd::cli`].

use std::process::ExitCode;

use estd::cli;

fn main() -> ExitCode {
    cli::main()
}
