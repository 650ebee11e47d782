//! The shim of `shim.c`: compiled once, its rules written, its record read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The shared object. RocksDB needs a C compiler, so there is one.
fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disks/shim.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let status = Command::new(compiler).args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&path).arg(source).status();
        assert!(status.expect("a C compiler runs").success(), "shim.c does not compile");
        (dir, path)
    });
    path
}

/// One act that the shim wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub op: String,
    pub action: String,
    /// Size of the file at its last sync that really happened, and at the act.
    pub synced: u64,
    pub size: u64,
    pub path: PathBuf,
}

/// The rules of one process, and what came of them.
#[derive(Clone)]
pub struct Shim {
    rules: PathBuf,
    log: PathBuf,
}

impl Shim {
    /// In `dir`, without rules.
    pub fn new(dir: &Path) -> Self {
        let shim = Self { rules: dir.join("shim.rules"), log: dir.join("shim.log") };
        shim.obey(&[]);
        shim
    }

    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [("LD_PRELOAD", library().to_owned()), ("SHIM_RULES", self.rules.clone()), ("SHIM_LOG", self.log.clone())]
    }

    /// From now on these rules (see `shim.c`), in place of those before.
    pub fn obey(&self, rules: &[&str]) {
        let generation = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let text = format!("{generation}\n{}\n", rules.join("\n"));
        // In place: the process holds the file open. One small write is one page: it is seen whole.
        let mut bytes = text.into_bytes();
        bytes.resize(1024, b'\n');
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(&self.rules).expect("the rules can be opened");
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("the rules can be written");
    }

    /// What it did so far.
    pub fn acts(&self) -> Vec<Act> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let parse = |line: &str| {
            let mut words = line.splitn(5, ' ');
            let mut word = || words.next().map(str::to_owned);
            let (op, action, synced, size, path) = (word()?, word()?, word()?, word()?, word()?);
            Some(Act { op, action, synced: synced.parse().ok()?, size: size.parse().ok()?, path: path.into() })
        };
        text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} is no act"))).collect()
    }

    /// Waits for the first act. `false`: none within `time`.
    pub fn struck(&self, time: Duration) -> bool {
        let since = Instant::now();
        while self.acts().is_empty() {
            if since.elapsed() > time {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}
