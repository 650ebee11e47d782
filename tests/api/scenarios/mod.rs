//! One history, told over every carrier: each scenario of the table is played on all of them, and what was heard must be the same.
//!
//! A carrier is one adapter (`ws_json.rs`, `ws_proto.rs`, `grpc.rs`, `rest.rs`, `sse.rs`, `client.rs`) and one row in [`Kind`], which lists the steps it
//! cannot do. Where a step is lacking, REST or a WebSocket does it for the carrier; a scenario that is about such a step names it in
//! the table and is not played there.

mod bytes;
mod carrier;
mod client;
mod commits;
mod grpc;
mod producers;
mod pulls;
mod refused;
mod rest;
mod sessions;
mod socket;
mod sse;
mod stage;
mod streams;
mod switching;
mod values;
mod windows;
mod ws_json;
mod ws_proto;

use std::pin::Pin;

use carrier::{Kind, Step};
use stage::{Broker, Stage};

type Play = for<'s, 'b> fn(&'s mut Stage<'b>) -> Pin<Box<dyn Future<Output = ()> + Send + 's>>;

/// A row of the table.
struct Scenario {
    /// Its sentence.
    name: &'static str,
    /// Steps without which there is nothing to see.
    needs: &'static [Step],
    /// Played over all ordered pairs of carriers, not over each.
    pairs: bool,
    play: Play,
}

/// The carriers of which all ordered pairs are tried.
const PAIRED: [Kind; 7] = [Kind::WsJson, Kind::WsProto, Kind::GrpcConnect, Kind::GrpcCalls, Kind::Rest, Kind::Client, Kind::Sse];

impl Scenario {
    /// Who plays it, with whom.
    fn casts(&self) -> Vec<(Kind, Kind)> {
        let able = |kind: &Kind| kind.can(self.needs);
        if self.pairs {
            let able: Vec<Kind> = PAIRED.into_iter().filter(able).collect();
            return able.iter().flat_map(|a| able.iter().map(|b| (*a, *b))).collect();
        }
        let other = |kind| if kind == Kind::WsJson { Kind::WsProto } else { Kind::WsJson };
        Kind::ALL.into_iter().filter(able).map(|kind| (kind, other(kind))).collect()
    }

    /// Plays it with everybody, on one broker where that makes no difference, and compares.
    async fn run(&self) {
        let mut broker = Broker::start().await;
        let mut first: Option<((Kind, Kind), Vec<String>)> = None;
        for (index, cast) in self.casts().into_iter().enumerate() {
            let mut stage = Stage::new(&mut broker, cast.0, cast.1, &format!("zq{index}-"));
            println!("{} with {cast:?}", self.name);
            (self.play)(&mut stage).await;
            let (transcript, deleted) = stage.finish();
            if deleted {
                broker.stop().await;
                broker = Broker::start().await;
            }
            match &first {
                None => first = Some((cast, transcript)),
                Some((model, expected)) => compare(expected, &transcript, &format!("{model:?} and {cast:?} tell different histories")),
            }
        }
        broker.stop().await;
    }
}

fn compare(expected: &[String], heard: &[String], what: &str) {
    let differs = (0..expected.len().max(heard.len())).find(|i| expected.get(*i) != heard.get(*i));
    let Some(at) = differs else { return };
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "(nothing more)".to_owned());
    panic!("{what}, in line {}:\n  {}\n  {}\nafter\n  {}", at + 1, line(expected), line(heard), expected[at.saturating_sub(3)..at].join("\n  "));
}

macro_rules! scenarios {
    ($($module:ident :: $name:ident $(needs [$($step:ident),*])? $(in $pairs:ident)?;)*) => {
        const TABLE: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            needs: &[$($(Step::$step),*)?],
            pairs: scenarios!(@pairs $($pairs)?),
            play: |stage| Box::pin($module::$name(stage)),
        }),*];

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            TABLE.iter().find(|scenario| scenario.name == stringify!($name)).expect("a row").run().await;
        })*
    };
    (@pairs pairs) => { true };
    (@pairs) => { false };
}

scenarios! {
    bytes::an_event_comes_back_byte_for_byte_in_every_encoding;
    bytes::json_data_keeps_its_white_space_numbers_and_escapes needs [ReadLineEnds];
    bytes::headers_keep_their_order_and_names_their_letters;
    bytes::offsets_are_dense_and_pages_begin_anywhere_in_a_batch;
    bytes::one_event_is_read_by_its_place;
    bytes::an_event_over_the_limits_is_refused_and_nothing_is_stored;
    bytes::a_stream_takes_events_up_to_its_own_limit;
    producers::each_opening_of_a_producer_is_a_new_epoch;
    producers::a_producer_that_comes_back_goes_on_after_its_last_event needs [Send];
    producers::a_producer_opened_elsewhere_is_fenced needs [Send];
    producers::a_batch_sent_again_is_answered_with_its_first_offsets needs [AppendStamped];
    producers::what_does_not_fit_the_sequence_is_refused_by_its_rule needs [AppendStamped];
    producers::an_old_batch_without_its_receipt_is_a_duplicate_without_offsets needs [AppendStamped];
    producers::a_refused_batch_does_not_use_its_number needs [AppendStamped];
    producers::a_refused_append_poisons_those_behind_it_until_resume needs [Pipeline];
    producers::appends_without_a_producer_are_poisoned_too needs [Pipeline];
    producers::an_append_that_stands_alone_poisons_nothing needs [Unary];
    streams::a_condition_holds_or_tells_where_the_stream_stands;
    streams::a_failed_condition_tells_whether_the_events_are_there_already;
    streams::a_closed_stream_takes_no_more_and_reads_go_on;
    streams::names_are_taken_once_and_differ_in_more_than_case;
    streams::a_stream_that_is_not_there_is_not_found;
    streams::a_trim_moves_the_beginning_and_nothing_else;
    streams::a_deleted_stream_is_gone_and_its_name_is_free_again;
    streams::an_id_tells_a_new_stream_from_an_old_one_of_its_name needs [AppendToId];
    sessions::a_reader_begins_at_the_earliest_the_latest_an_offset_or_a_time;
    sessions::a_cursor_stays_where_it_was_acknowledged;
    sessions::a_subscription_is_created_only_when_asked_for;
    sessions::an_ephemeral_reader_has_nothing_to_acknowledge needs [Follow, AckNothing];
    sessions::a_takeover_fences_the_reader_before_it;
    sessions::a_polite_reader_does_not_take_over needs [Leave];
    sessions::the_ack_table_from_top_to_bottom needs [AckAnything, Narrow];
    sessions::a_position_behind_the_cursor_needs_a_rewind;
    sessions::a_position_of_another_history_or_beyond_the_end_moves_nothing;
    sessions::a_reader_below_the_beginning_fails_or_skips_the_gap;
    sessions::a_trim_under_a_live_reader_ends_it_or_sends_a_gap;
    sessions::a_deletion_ends_live_readers;
    sessions::a_deleted_subscription_ends_its_reader;
    sessions::a_seek_ends_the_session_and_moves_the_cursor_either_way needs [HearTheEnd];
    sessions::a_received_ack_counts_for_a_takeover;
    sessions::a_reader_is_told_once_that_it_is_live needs [Follow];
    windows::a_durable_window_pauses_and_is_refilled_by_acks;
    windows::the_subscription_says_how_large_its_window_is;
    windows::a_reader_may_ask_for_a_larger_window needs [Widen];
    windows::credit_widens_a_durable_window needs [Credit];
    windows::an_ephemeral_reader_lives_on_credit needs [Follow, Credit];
    windows::a_window_cuts_a_batch_between_two_events needs [Narrow];
    commits::a_commit_acknowledges_and_appends_at_once;
    commits::a_commit_sent_again_gets_its_first_answer;
    commits::one_refused_part_refuses_the_whole_commit;
    commits::an_ack_that_moves_nothing_refuses_the_commit;
    commits::a_check_holds_a_commit_back;
    commits::a_fenced_session_commits_nothing needs [Narrow];
    commits::a_producer_of_commits_follows_the_producer_table;
    commits::a_commit_needs_no_producer_and_goes_over_any_carrier needs [Subscribe] in pairs;
    switching::an_event_appended_over_one_carrier_is_read_over_another in pairs;
    switching::a_cursor_goes_on_over_another_carrier needs [Subscribe] in pairs;
    switching::a_takeover_over_another_carrier_fences needs [Subscribe] in pairs;
    switching::a_producer_goes_on_over_another_carrier needs [Send] in pairs;
    switching::a_batch_resent_over_another_carrier_is_recognised needs [AppendStamped] in pairs;
    switching::a_restart_forgets_nothing_but_what_readers_were_given;
    switching::a_restart_keeps_producers_and_receipts needs [AppendStamped];
}

/// No scenario tells its history to nobody, and a comparison has at least two sides.
#[test]
fn every_scenario_is_played_over_at_least_two_carriers() {
    for scenario in TABLE {
        assert!(scenario.casts().len() >= 2, "{}", scenario.name);
    }
    assert!(TABLE.iter().filter(|scenario| scenario.casts().len() >= 4).count() >= 25);
}

/// What a carrier lacks is said once. A new entry here is a decision.
#[test]
fn what_carriers_cannot_do_is_written_down() {
    for kind in Kind::ALL {
        println!("{kind:?} cannot {:?}", kind.cannot());
    }
    assert!(Kind::WsJson.cannot() == Kind::WsProto.cannot(), "the two subprotocols say the same things");
    assert!(Kind::GrpcConnect.cannot() == Kind::WsProto.cannot(), "they carry the same frames");
    assert!(Kind::GrpcCalls.can(&[Step::Subscribe, Step::AckAnything, Step::Commit, Step::Administer, Step::AppendStamped]));
    assert!(Kind::Client.can(&[Step::Send, Step::Subscribe, Step::Commit, Step::Administer]));
    assert!(Kind::Rest.can(&[Step::Administer, Step::ReadOne, Step::AppendStamped, Step::OpenProducer, Step::OpenCommitProducer]));
    assert!(Kind::Rest.can(&[Step::Subscribe, Step::AckAnything, Step::Commit]), "a pull is a reader like any other");
}

#[test]
#[should_panic(expected = "tell different histories, in line 2")]
fn a_difference_between_two_histories_is_found() {
    let lines = |texts: [&str; 3]| texts.map(str::to_owned);
    compare(&lines(["a", "b", "c"]), &lines(["a", "x", "c"]), "two carriers tell different histories");
}

#[test]
#[should_panic(expected = "(nothing more)")]
fn a_history_that_stops_early_is_another_one() {
    compare(&["a".to_owned(), "b".to_owned()], &["a".to_owned()], "two carriers tell different histories");
}
