//! The command of `--on-renewed`: it tells whoever uses the pair that there is a new one.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::pair::PairFiles;

/// How long it may take. Nothing is renewed before it has ended.
const LIMIT: Duration = Duration::from_mins(10);
const STEP: Duration = Duration::from_millis(50);

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) enum Failed {
    /// It could not be run.
    NotRun(io::Error),
    /// It said so.
    Exit(ExitStatus),
    /// It did not end, and was killed with everything that it had started.
    TooLong(Duration),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun(why) => why.fmt(f),
            Self::Exit(status) => status.fmt(f),
            Self::TooLong(limit) => write!(f, "killed: it had not ended after {limit:?}"),
        }
    }
}

/// Runs it by `sh -c`, to its end.
pub(super) fn run(command: &str, files: &PairFiles) -> Result<(), Failed> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(io::stderr());
    shell.env("ESTD_CERT", files.certificate()).env("ESTD_KEY", files.key());
    run_for(shell, LIMIT)
}

fn run_for(mut shell: Command, limit: Duration) -> Result<(), Failed> {
    let end = Instant::now() + limit;
    let mut child = shell.process_group(0).spawn().map_err(Failed::NotRun)?;
    loop {
        match child.try_wait().map_err(Failed::NotRun)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Failed::Exit(status)),
            None if Instant::now() < end => sleep(STEP),
            None => {
                kill_group(&mut child).map_err(Failed::NotRun)?;
                return Err(Failed::TooLong(limit));
            }
        }
    }
}

fn kill_group(child: &mut Child) -> io::Result<()> {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s KILL -- \"-$0\"", &child.id().to_string()]);
    kill.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_end_is_killed_with_what_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1 && touch late & wait"]).current_dir(folder.path());
        let begun = Instant::now();
        let failed = run_for(shell, Duration::from_millis(200)).unwrap_err();
        assert_eq!(failed.to_string(), "killed: it had not ended after 200ms");
        assert!(begun.elapsed() < Duration::from_secs(1));
        sleep(Duration::from_millis(1500));
        assert!(!folder.path().join("late").exists());
    }
}
