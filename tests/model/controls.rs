//! A checker that cannot fail shows nothing: for each promise a broker that breaks it, and the law must notice soon.

use crate::runs::caught;
use crate::support::Promise;

/// Promises that the law cannot see, and which checker does.
const ELSEWHERE: &[(&str, &str)] = &[];

/// Histories until it must have been noticed.
const SOON: u32 = 200;

fn is_noticed(promise: Promise) {
    let Some((histories, why)) = caught(promise, SOON) else { panic!("{promise:?}: nothing was noticed in {SOON} histories") };
    let line: String = why.lines().take(3).collect::<Vec<_>>().join(" ").chars().take(300).collect();
    println!("{promise:?} is noticed in history {histories}: {line}");
}

macro_rules! controls {
    ($($name:ident: $promise:ident;)*) => {
        $(#[test]
        fn $name() {
            is_noticed(Promise::$promise);
        })*

        #[test]
        fn each_promise_has_its_control() {
            let named = [$(Promise::$promise),*];
            let unseen = |word: &str, promise: &Promise| !named.contains(promise) && !ELSEWHERE.iter().any(|(other, _)| *other == word);
            let missing: Vec<_> = Promise::ALL.iter().filter(|(word, promise)| unseen(word, promise)).collect();
            assert!(missing.is_empty(), "{missing:?}: give each a control here, or say in ELSEWHERE which other checker sees it");
        }
    };
}

controls! {
    control_an_answer_before_the_sync_is_noticed: AckBeforeSync;
    control_a_dirty_read_is_noticed: DirtyRead;
    control_a_split_commit_is_noticed: SplitCommit;
    control_a_dropped_receipt_is_noticed: DropReceipt;
    control_a_repeated_append_is_noticed: RepeatAppend;
    control_a_skipped_offset_is_noticed: SkipOffset;
    control_a_stale_session_is_noticed: StaleSession;
    control_a_dropped_ack_is_noticed: DropAck;
    control_a_clamped_position_is_noticed: ClampPosition;
    control_a_skipped_delivery_is_noticed: SkipDelivery;
    control_a_forgotten_poison_is_noticed: ForgetPoison;
    control_a_reused_epoch_is_noticed: ReuseEpoch;
}
