//! One shell, as a person has one: blocks of commands go in one after the other, what they print comes out, and Ctrl-C ends what
//! would go on for ever.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{PATIENCE, tools};

/// Reads names of files and runs each in itself, so that variables and aliases live on. A failing command of a block is remembered.
/// Ctrl-C ends the command and not the shell. Behind each block stands a mark with what failed.
const DRIVER: &str = r#"
shopt -s expand_aliases
set -o pipefail
trap : INT
while IFS= read -r block; do
    failed=
    trap 'failed="$BASH_COMMAND (status $?)"' ERR
    . "$block" <"$block.stdin"
    trap - ERR
    printf '\036%s\036' "$failed"
done
"#;
/// Begins and ends the mark behind a block.
const MARK: char = '\u{1e}';

/// How long what has printed all that was expected may still take to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// The shell.
pub struct Shell {
    child: Child,
    blocks: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    folder: PathBuf,
    count: usize,
}

/// A block that runs.
pub struct Running<'a> {
    shell: &'a mut Shell,
    keys: Option<File>,
    bytes: Vec<u8>,
    /// How much of the output was looked at by [`Running::hears`].
    heard: usize,
}

/// How a block ended.
#[derive(Debug)]
pub struct Ended {
    /// Both outputs, in the order of their coming.
    pub printed: String,
    /// The last command that failed, if any; empty.
    pub failed: String,
}

impl Shell {
    /// In this folder, with these settings.
    pub fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // A build machine may run all of this in the background, where interrupts are ignored; a shell cannot undo that for itself.
        let mut command = Command::new("env");
        tools::without_settings(&mut command);
        command
            .args(["--default-signal=INT,QUIT", "bash", "--noprofile", "--norc", "-c", DRIVER])
            .current_dir(folder)
            .env("PATH", tools::path())
            .envs(settings.iter().copied());
        command.stdin(Stdio::piped()).stdout(writer.try_clone().expect("a pipe has two ends")).stderr(writer).process_group(0);
        let mut child = command.spawn().expect("bash starts");
        let blocks = child.stdin.take();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let (mut reader, mut buffer) = (reader, [0; 8192]);
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, blocks, output, folder: folder.to_owned(), count: 0 }
    }

    /// Starts a block. What the block reads comes from [`Running::types`].
    pub fn run(&mut self, text: &str) -> Running<'_> {
        self.count += 1;
        let block = self.folder.join(format!(".block-{}", self.count));
        fs::write(&block, text).expect("a block can be written");
        let stdin = self.folder.join(format!(".block-{}.stdin", self.count));
        rustix::fs::mknodat(rustix::fs::CWD, &stdin, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe with a name");
        writeln!(self.blocks.as_mut().expect("the shell runs"), "{}", block.display()).expect("the shell listens");
        // Opens when the shell has opened the other end.
        let keys = File::options().write(true).open(&stdin).expect("the block reads");
        Running { shell: self, keys: Some(keys), bytes: Vec::new(), heard: 0 }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Shell {
    /// To everything that was started in it.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_raw(self.child.id() as i32).expect("a child has a number"), signal);
    }
}

impl Running<'_> {
    /// One line, and Enter.
    pub fn types(&mut self, line: &str) {
        writeln!(self.keys.as_mut().expect("not at the end of input"), "{line}").expect("the block reads what is typed");
    }

    /// Waits for a whole line that looks right; passes over those before it.
    #[track_caller]
    pub fn hears(&mut self, looks_right: impl Fn(&str) -> bool) {
        let since = Instant::now();
        let mut passed = String::new();
        loop {
            let rest = &self.bytes[self.heard..];
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.heard += end + 1;
                if looks_right(&line) {
                    return;
                }
                passed += &format!("  {line}\n");
                continue;
            }
            let ended = self.mark().is_some();
            assert!(!ended && self.more(PATIENCE.saturating_sub(since.elapsed())), "it did not come; what came instead:\n{passed}");
        }
    }

    /// Waits for its end. When all that was expected is there and it still goes on: Ctrl-C.
    #[track_caller]
    pub fn ends(mut self, complete: impl Fn(&str) -> bool) -> Ended {
        self.keys = None;
        let since = Instant::now();
        let (mut complete_since, mut interrupted) = (None, false);
        loop {
            if let Some((printed, failed)) = self.mark() {
                // Who was interrupted did not fail.
                return Ended { printed, failed: if interrupted { String::new() } else { failed } };
            }
            let so_far = String::from_utf8_lossy(&self.bytes).into_owned();
            assert!(since.elapsed() < PATIENCE, "it does not end, and has not printed what was expected. It printed:\n{so_far}");
            let now = Instant::now();
            let left = match complete_since {
                None if complete(&so_far) => {
                    complete_since = Some(now);
                    GRACE
                }
                None => PATIENCE.saturating_sub(since.elapsed()),
                Some(at) if now.duration_since(at) >= GRACE => {
                    self.shell.signal(Signal::INT);
                    interrupted = true;
                    complete_since = Some(now);
                    GRACE
                }
                Some(at) => GRACE.saturating_sub(now.duration_since(at)),
            };
            self.more(left);
        }
    }

    /// Takes what came. `false`: nothing more comes, or not in time.
    fn more(&mut self, wait: Duration) -> bool {
        match self.shell.output.recv_timeout(wait) {
            Ok(bytes) => {
                self.bytes.extend(bytes);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => panic!("the shell is gone; it printed:\n{}", String::from_utf8_lossy(&self.bytes)),
        }
    }

    /// What was printed and what failed, once the mark is there.
    fn mark(&self) -> Option<(String, String)> {
        let text = String::from_utf8_lossy(&self.bytes);
        let (printed, rest) = text.split_once(MARK)?;
        let (failed, _) = rest.split_once(MARK)?;
        Some((printed.to_owned(), failed.to_owned()))
    }
}

#[test]
fn a_shell_keeps_its_variables_tells_what_failed_and_survives_an_interrupt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut shell = Shell::start(folder.path(), &[("GIVEN", "1")]);
    let never = |_: &str| false;
    let first = shell.run("alias say=echo\nX=$GIVEN\n").ends(never);
    assert_eq!((first.printed.as_str(), first.failed.as_str()), ("", ""));
    let second = shell.run("say \"$X\"\nfalse\nls /nowhere 2>&1 | cat >/dev/null\necho end >&2\n").ends(never);
    assert_eq!((second.printed.as_str(), second.failed.contains("status")), ("1\nend\n", true), "{second:?}");
    let mut third = shell.run("read -r line; echo \"heard $line\"; read -r line; echo \"then $line\"\n");
    third.types("one");
    third.hears(|line| line == "heard one");
    third.types("two");
    third.hears(|line| line == "then two");
    assert_eq!(third.ends(never).failed, "");
    let fourth = shell.run("echo here; sleep 600\n").ends(|printed| printed == "here\n");
    assert_eq!((fourth.printed.as_str(), fourth.failed.as_str()), ("here\n", ""));
    assert_eq!(shell.run("say $((X + 1))\n").ends(never).printed, "2\n");
}
