//! File systems that belong to a test: an ext4 in a file that lies on another ext4 in a file. Freezing the outer one stops the inner one's
//! block device at one moment, with whatever had reached it by then: what was only in memory is not on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program} does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path is text")
}

/// Something that is mounted, until it is dropped.
pub struct Mount {
    pub at: PathBuf,
    frozen: bool,
}

impl Mount {
    fn new(arguments: &[&str], at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        run("mount", &[arguments, &[text(&at)]].concat())?;
        Ok(Self { at, frozen: false })
    }

    /// Nothing is written to it from now on; who tries, waits.
    pub fn freeze(&mut self) {
        run("fsfreeze", &["--freeze", text(&self.at)]).expect("a file system that is ours freezes");
        self.frozen = true;
    }

    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            run("fsfreeze", &["--unfreeze", text(&self.at)]).expect("it thaws");
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.frozen {
            let _ = run("fsfreeze", &["--unfreeze", text(&self.at)]);
        }
        // A process that was killed a moment ago may still hold it.
        if run("umount", &[text(&self.at)]).is_err() {
            let _ = run("umount", &["--lazy", text(&self.at)]);
        }
    }
}

/// A new ext4 of `mebibytes` in `file`. It takes up what is written to it.
fn format(file: &Path, mebibytes: u64, journal: bool) -> Result<(), String> {
    std::fs::File::create(file).and_then(|file| file.set_len(mebibytes << 20)).map_err(|error| error.to_string())?;
    let features = if journal { "has_journal" } else { "^has_journal" };
    run("mkfs.ext4", &["-q", "-F", "-O", features, text(file)])
}

/// Two outer file systems: the copy of one's disk goes to the other.
pub struct Rig {
    // Dropped in this order: what is mounted inside first.
    outer: [Mount; 2],
    dir: TempDir,
    turn: usize,
}

/// Where image files are: in memory if there is room, so that the host's disk is spared.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let dir = if room > 1 << 30 { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a temporary directory")
}

impl Rig {
    /// `Err`: why this is not allowed here.
    pub fn new() -> Result<Self, String> {
        let dir = scratch();
        let outer = |name: &str| {
            let file = dir.path().join(format!("{name}.img"));
            format(&file, 320, false)?;
            Mount::new(&["-o", "loop", text(&file)], dir.path().join(name))
        };
        let outer = [outer("a")?, outer("b")?];
        let rig = Self { outer, dir, turn: 0 };
        format(&rig.disk(), 256, true)?;
        // Loops in loops may be refused although single ones are not.
        drop(rig.mount()?);
        Ok(rig)
    }

    fn disk(&self) -> PathBuf {
        self.outer[self.turn].at.join("disk.img")
    }

    /// The disk as it is, its journal replayed.
    pub fn mount(&self) -> Result<Mount, String> {
        Mount::new(&["-o", "loop", text(&self.disk())], self.dir.path().join("disk"))
    }

    /// Where logs of the broker may lie that outlive it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The block device stands still.
    pub fn freeze(&mut self) {
        self.outer[self.turn].freeze();
    }

    pub fn thaw(&mut self) {
        self.outer[self.turn].thaw();
    }

    /// Copies the disk as it is to the other side.
    pub fn copy(&self) {
        let there = self.outer[1 - self.turn].at.join("disk.img");
        run("cp", &["--sparse=always", text(&self.disk()), text(&there)]).expect("the disk is copied");
    }

    /// From now on the copy is the disk; the old one is gone. Nothing of it may be mounted.
    pub fn swap(&mut self) {
        let _ = std::fs::remove_file(self.disk());
        self.turn = 1 - self.turn;
    }
}

/// A file system in memory that is `mebibytes` large. `Err`: why this is not allowed here.
pub fn small(dir: &Path, mebibytes: u64) -> Result<Mount, String> {
    Mount::new(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tidelog-test"], dir.join("small"))
}
