//! From a directory to a handle that may be served: lock, recovery, the known-durable check, the format.
//!
//! Everything here refuses rather than repairs. What it refuses, and with which exit code, is [`OpenError`].

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rocksdb::{DB, DBRecoveryMode, ErrorKind, Options};

use super::options::{self, RocksOptions, Shared, family};
use super::recovery::{self, Verdict};
use super::{durable, faults, manifest, space};
use crate::log::OpenError;
use crate::log::rows::{self, FORMAT_VERSION, Key, value};
use crate::types::TimeUs;

/// Our own lock, held before anything of the directory is looked at.
pub(super) const LOCK: &str = "LOCK.tidelog";

/// A directory that may be served.
pub(super) struct Opened {
    pub(super) db: DB,
    pub(super) shared: Shared,
    pub(super) lock: File,
}

/// Opens `options.dir`. Blocks for as long as the recovery takes.
pub(super) fn open(options: &RocksOptions) -> Result<Opened, OpenError> {
    let dir = &options.dir;
    make_private(dir, true)?;
    let lock = lock(dir)?;
    reach(faults::OPEN_LOCKED)?;
    make_private(&options.db_dir(), false)?;
    reach(faults::OPEN_MADE)?;
    let fresh = !options.db_dir().join("CURRENT").exists();
    let recorded = durable::recorded(dir).unwrap_or(0);
    if fresh && recorded > 0 && !options.accept_loss {
        return Err(lost(dir, 0, recorded));
    }
    if let Some(what) =
        manifest::judge(&options.db_dir()).map_err(|e| OpenError::Failed(format!("The files in {} cannot be read: {e}.", options.db_dir().display())))?
    {
        return Err(hopeless(dir, &what));
    }
    if !fresh {
        know_all_families(options)?;
    }
    let shared = Shared::new(options);
    let (db, torn) = recover(options, &shared)?;
    reach(faults::RECOVERY_OPENED)?;
    let recovered = db.latest_sequence_number();
    if recovered < recorded && !options.accept_loss {
        return Err(lost(dir, recovered, recorded));
    }
    if options.accept_loss && (torn == Loss::Acknowledged || recovered < recorded) {
        accept(&db, dir).map_err(OpenError::Failed)?;
    }
    check_format(&db, dir, fresh)?;
    Ok(Opened { db, shared, lock })
}

fn reach(point: &str) -> Result<(), OpenError> {
    faults::reach(point).map_err(OpenError::Failed)
}

/// Makes a directory that only its owner can enter. One that exists is closed to others unless it is the data directory itself, which may be
/// someone's working directory: the files of the log are in a directory of their own.
fn make_private(dir: &Path, may_be_shared: bool) -> Result<(), OpenError> {
    let failed = |error| OpenError::Failed(format!("The directory {} cannot be used: {error}.", dir.display()));
    if dir.is_dir() {
        let mode = std::fs::metadata(dir).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 && !may_be_shared {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)
}

/// Takes the lock, or says who has it. The kernel gives it back when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let failed = |error| OpenError::Failed(format!("The lock file {} cannot be used: {error}.", path.display()));
    let mut file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // For the text only; on some systems it cannot be read.
            let _ = file.read_to_string(&mut holder);
            return Err(locked(dir, holder.trim()));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

pub(super) fn locked(dir: &Path, holder: &str) -> OpenError {
    let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
    OpenError::Locked(format!("The data directory {} is in use by another broker{who}. Stop that one, or give this one a directory of its own.", dir.display()))
}

/// A newer version may have column families that this one would have to open.
pub(super) fn know_all_families(options: &RocksOptions) -> Result<(), OpenError> {
    // An error here comes again, with its reason, from the open itself.
    let found = DB::list_cf(&Options::default(), options.db_dir()).unwrap_or_default();
    match found.iter().find(|name| !family::ALL.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(newer(&options.dir, &format!("has a table {name:?} that this version does not know"))),
    }
}

fn newer(dir: &Path, why: &str) -> OpenError {
    OpenError::Newer(format!(
        "The data directory {} {why}; this version reads format {FORMAT_VERSION}. Start the newer version of Tidelog that wrote it.",
        dir.display()
    ))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    Acknowledged,
}

/// Opens strictly. Our own reader judges the logs first; when the engine then calls them corrupt, a torn last group is the one thing that may be
/// dropped, because nobody was told it is stored (`storage.md` section 3).
fn recover(options: &RocksOptions, shared: &Shared) -> Result<(DB, Loss), OpenError> {
    let db_dir = options.db_dir();
    reach(faults::RECOVERY_SCAN)?;
    let verdict = recovery::examine(&db_dir).map_err(|e| OpenError::Failed(format!("The logs in {} cannot be read: {e}.", db_dir.display())))?;
    reach(faults::RECOVERY_SCANNED)?;
    if let Verdict::Damaged { file, offset } = &verdict {
        let what = format!("{} is damaged at byte {offset}, and so is acknowledged data there or behind", file.display());
        if !options.accept_loss {
            return Err(OpenError::Refused(advise(&options.dir, &what)));
        }
        tracing::error!("ACKNOWLEDGED EVENTS ARE LOST by the operator's word: {what}; everything from there on is dropped");
        return give_up_tail(options, shared, &what).map(|db| (db, Loss::Acknowledged));
    }
    // A log that is not the last was whole when the next one began. The engine would take a damaged end of it for a torn write and go on with
    // the next log, a hole; strictly, it passes over the file only if nothing in it is needed any more.
    let mode = match verdict {
        Verdict::TornEarlier { .. } => DBRecoveryMode::AbsoluteConsistency,
        _ => DBRecoveryMode::TolerateCorruptedTailRecords,
    };
    let error = match open_db(options, shared, mode) {
        Ok(db) => {
            if let Verdict::TornTail { file, offset } = &verdict {
                tracing::warn!(file = %file.display(), offset, "the log ended in the middle of a record: that group was never acknowledged, and is dropped");
            }
            return Ok((db, Loss::None));
        }
        Err(error) => error,
    };
    let text = error.as_ref();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        return Err(locked(&options.dir, ""));
    }
    if error.kind() != ErrorKind::Corruption {
        return Err(OpenError::Failed(format!("The storage engine cannot open {}: {text}.", db_dir.display())));
    }
    match verdict {
        Verdict::TornTail { file, offset } => {
            tracing::error!(
                file = %file.display(), offset, error = text,
                "the log ends in a torn write: the last group, which nobody was told is stored, is dropped; all acknowledged events are kept"
            );
            give_up_tail(options, shared, text).map(|db| (db, Loss::None))
        }
        Verdict::TornEarlier { file, offset } if options.accept_loss => {
            tracing::error!(
                file = %file.display(), offset, error = text,
                "ACKNOWLEDGED EVENTS ARE LOST by the operator's word: everything in the logs from the damaged spot on is dropped"
            );
            give_up_tail(options, shared, text).map(|db| (db, Loss::Acknowledged))
        }
        Verdict::TornEarlier { .. } | Verdict::Damaged { .. } | Verdict::Sound => {
            Err(OpenError::Refused(advise(&options.dir, &format!("stored bytes are damaged: {text}"))))
        }
    }
}

/// Opens up to the damaged spot of the log and forgets the rest.
fn give_up_tail(options: &RocksOptions, shared: &Shared, why: &str) -> Result<DB, OpenError> {
    reach(faults::RECOVERY_REPAIR)?;
    if options.accept_loss {
        recovery::defuse(&options.db_dir()).map_err(|e| OpenError::Failed(format!("The logs in {} cannot be written: {e}.", options.db_dir().display())))?;
    }
    let opened = open_db(options, shared, DBRecoveryMode::PointInTime);
    let db = opened.map_err(|error| OpenError::Refused(advise(&options.dir, &format!("stored bytes are damaged: {why}; then: {error}"))))?;
    reach(faults::RECOVERY_REPAIRED)?;
    Ok(db)
}

fn open_db(options: &RocksOptions, shared: &Shared, recovery: DBRecoveryMode) -> Result<DB, rocksdb::Error> {
    DB::open_cf_descriptors(&options::database(options, shared, recovery)?, options.db_dir(), options::families(options, shared)?)
}

fn lost(dir: &Path, found: u64, recorded: u64) -> OpenError {
    let what = format!("commits up to {recorded} were acknowledged, but only those up to {found} are there (S-7): is this an old copy?");
    OpenError::Refused(advise(dir, &what))
}

/// What cannot be opened whatever loss is accepted.
fn hopeless(dir: &Path, what: &str) -> OpenError {
    OpenError::Refused(format!(
        "The data directory {} is refused: {what}. Nothing can be served without it. First make a copy of the directory. Then put back the \
         right one from a copy or checkpoint.",
        dir.display()
    ))
}

/// What is wrong, and the three ways out.
fn advise(dir: &Path, what: &str) -> String {
    format!(
        "The data directory {} is refused: {what}. First make a copy of the directory. Then put back the right one from a copy or \
         checkpoint, or accept the loss of acknowledged events by starting once with `accept_loss`; readers then see a new log_epoch.",
        dir.display()
    )
}

/// The operator accepts a loss: a new history begins (S-6, S-7).
fn accept(db: &DB, dir: &Path) -> Result<(), String> {
    let meta = db.cf_handle(family::META).ok_or("no column family meta")?;
    let key = Key::Counters.encode().bytes;
    if let Some(bytes) = db.get_cf(meta, &key).map_err(|e| e.to_string())? {
        let mut counters: value::Counters = rows::decode(&bytes)?;
        counters.log_epoch += 1;
        db.put_cf_opt(meta, &key, rows::encode(&counters), &options::commit()).map_err(|e| e.to_string())?;
    }
    faults::reach(faults::LOSS_COUNTED)?;
    durable::record(dir, db.latest_sequence_number()).map_err(|e| e.to_string())
}

/// Writes the format row at the first start; afterwards it must be there and not newer than this version. The counters must be readable, too.
fn check_format(db: &DB, dir: &Path, fresh: bool) -> Result<(), OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::Failed(format!("The format of {} cannot be read or written: {error}.", dir.display()));
    let meta = db.cf_handle(family::META).ok_or_else(|| failed(&"no column family meta"))?;
    let get = |key: &[u8]| {
        db.get_cf(meta, key).map_err(|error| match error.kind() {
            ErrorKind::Corruption => hopeless(dir, &format!("a row that everything rests on is damaged ({error})")),
            _ => failed(&error),
        })
    };
    get(&Key::Counters.encode().bytes)?;
    let key = Key::Format.encode().bytes;
    let Some(bytes) = get(&key)? else {
        // A crash at the very first start leaves an empty database.
        if !fresh && db.latest_sequence_number() > 0 {
            return Err(OpenError::Refused(advise(dir, "it has no format row, so Tidelog did not write it or the row is lost")));
        }
        reach(faults::FORMAT_WRITE)?;
        let secret: [u8; 32] = rand::random();
        let row = value::Format { version: FORMAT_VERSION, created_us: TimeUs::now().0, secret: secret.to_vec() };
        db.put_cf_opt(meta, &key, rows::encode(&row), &options::commit()).map_err(|e| failed(&e))?;
        return reach(faults::FORMAT_WRITTEN);
    };
    let row: value::Format = rows::decode(&bytes).map_err(|e| OpenError::Refused(advise(dir, &e)))?;
    if row.version > FORMAT_VERSION {
        return Err(newer(dir, &format!("has format {}", row.version)));
    }
    Ok(())
}

/// The watermark of the directory.
pub(super) fn watch_space(options: &RocksOptions) -> space::Space {
    space::Space::new(&options.dir, options.free_min_bytes, options.ballast_bytes, space::room)
}
