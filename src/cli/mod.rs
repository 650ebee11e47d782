//! The binary's commands. Contract: `design.md` section 7; reference: `docs/cli.md`.
//!
//! Data goes to stdout, everything said about it to stderr. Each command is a file; this one parses, runs and turns the
//! outcome into an exit code.

mod access;
mod admin;
mod bench;
#[cfg(feature = "server")]
mod ca;
mod connect;
mod explain;
mod failure;
#[doc(hidden)]
pub mod input;
mod kept;
mod output;
mod password;
mod progress;
mod publish;
mod query;
mod remote;
#[cfg(feature = "server")]
mod serve;
#[cfg(feature = "server")]
mod store;
mod subscribe;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use connect::Connect;
use failure::{Failure, Outcome};

/// A realtime push event-stream broker, and its client.
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, about, max_term_width = 120, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 conflict, 6 unreachable, 7 timeout, 130 Ctrl-C.")]
struct Cli {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    #[cfg(feature = "server")]
    Serve(serve::ServeArgs),
    /// Run a broker for trying things out: loopback callers are the operator, streams are created on first use.
    #[cfg(feature = "server")]
    Dev(serve::DevArgs),
    /// Append events: one from the command line, or one per line of stdin.
    Pub(publish::Pub),
    /// Follow a stream; with --subscription, ack each event after printing it.
    Sub(subscribe::Sub),
    /// Print the last events of a stream.
    Tail(subscribe::Tail),
    /// Create, list, describe, trim, close and remove streams.
    #[command(subcommand)]
    Stream(admin::Stream),
    /// Create, list, describe, move and remove subscriptions.
    #[command(subcommand)]
    Subscription(admin::Subscription),
    /// List, describe and forget the producers of a stream.
    #[command(subcommand)]
    Producer(admin::Producer),
    /// Create, list, change and remove users.
    #[command(subcommand)]
    User(access::User),
    /// Create, list, change and remove sources: programs with a key of their own.
    #[command(subcommand)]
    Source(access::Source),
    /// Create, list and remove keys that act for you.
    #[command(subcommand)]
    Key(access::Key),
    /// Show and set who may do what on a stream.
    #[command(subcommand)]
    Right(access::RightOf),
    /// Open a console session by name and password.
    Login(access::Login),
    /// End the console session.
    Logout,
    /// Show who you are to the broker.
    Whoami,
    /// Give brokers names, and choose the one that commands speak to.
    #[command(subcommand)]
    Remote(remote::RemoteCommand),
    /// Look at background work.
    #[command(subcommand)]
    Operation(admin::Operation),
    /// Call any address of the API and print the answer.
    Query(query::Query),
    /// Measure a running broker, and check order, loss and duplication while measuring.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Check a running broker: load it, let you kill it, and hold what everybody saw against the promises.
    Verify(verify::Verify),
    /// Check a data directory that no broker has.
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Store(store::Store),
    /// Make a certificate authority, and certificates for the broker, its users and nodes.
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Print what an error code means.
    Explain(explain::Explain),
    /// Print completions for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Does this command line parse? What clap says if not.
///
/// # Errors
/// The usage error, or the text of `--help`.
#[doc(hidden)]
pub fn parses(arguments: impl IntoIterator<Item = String>) -> Result<(), String> {
    Cli::try_parse_from(arguments).map(drop).map_err(|error| error.to_string())
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream and which code.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let Cli { connect, command } = cli;
    let outcome = match command {
        // The broker has exit codes of its own.
        #[cfg(feature = "server")]
        Command::Serve(args) => return ExitCode::from(serve::run(args)),
        #[cfg(feature = "server")]
        Command::Dev(args) => return ExitCode::from(serve::run_dev(args)),
        command => run(connect, command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(connect: Connect, command: Command) -> Outcome {
    match command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidelog", &mut script);
            output::Out::new().raw(&script)
        }
        Command::Explain(args) => args.run(),
        Command::Remote(command) => command.run(&connect),
        #[cfg(feature = "server")]
        Command::Store(command) => command.run(connect.json),
        #[cfg(feature = "server")]
        Command::Ca(command) => command.run(connect.json),
        client => {
            let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure::failed(format!("No runtime could be started: {e}.")))?;
            // The first Ctrl-C only cuts the time of `verify` short; it has a verdict to give, and streams to remove.
            let presses = if matches!(client, Command::Verify(_)) { 2 } else { 1 };
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = run_client(connect, client) => outcome,
                    () = interrupted(presses) => Err(Failure::Interrupted),
                }
            });
            if matches!(outcome, Err(Failure::Interrupted)) {
                password::terminal_is_back();
            }
            // A thread that still reads stdin must not hold the process.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn run_client(connect: Connect, command: Command) -> Outcome {
    // `verify` says itself when the broker goes and comes; a line for each of its workers would hide it.
    if connect.verbose > 0 || !matches!(command, Command::Verify(_)) {
        connect.log();
    }
    let meant = connect.meant(matches!(command, Command::Logout))?;
    let client = &meant.client;
    match command {
        Command::Pub(args) => args.run(client, connect.json).await,
        Command::Sub(args) => args.run(client, connect.json).await,
        Command::Tail(args) => args.run(client, connect.json).await,
        Command::Stream(command) => command.run(client, connect.json).await,
        Command::Subscription(command) => command.run(client, connect.json).await,
        Command::Producer(command) => command.run(client, connect.json).await,
        Command::User(command) => command.run(client, connect.json).await,
        Command::Source(command) => command.run(client, connect.json).await,
        Command::Key(command) => command.run(client, connect.json).await,
        Command::Right(command) => command.run(client, connect.json).await,
        Command::Login(args) => args.run(&meant, connect.json).await,
        Command::Logout => access::logout(client, connect.key_file.is_none(), connect.json).await,
        Command::Whoami => access::whoami(&meant, connect.json).await,
        Command::Operation(command) => command.run(client, connect.json).await,
        Command::Query(args) => args.run(client).await,
        Command::Bench(command) => command.run(client, connect.json).await,
        Command::Verify(args) => args.run(client, connect.json).await,
        _ => Ok(()),
    }
}

/// Ctrl-C, so many times. Dropping what runs detaches readers; their cursors stay.
async fn interrupted(presses: u32) {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()) {
        Ok(mut signal) => {
            for _ in 0..presses {
                signal.recv().await;
            }
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_form_of_the_contract_parses() {
        for line in [
            "tidelog pub orders hello",
            "tidelog pub orders - --producer p1",
            "tidelog pub orders hello --type t --key k --header a=b --header c=d --json",
            "tidelog pub orders - --format event",
            "tidelog sub orders --subscription s --from earliest -n 10 --json",
            "tidelog sub orders --from 17 --no-ack",
            "tidelog sub orders --from 2026-01-26T10:00:00Z",
            "tidelog tail orders -n 10 -f",
            "tidelog stream create orders --description d",
            "tidelog stream ls --json",
            "tidelog stream show orders",
            "tidelog stream rm orders --yes",
            "tidelog stream trim orders --before 10",
            "tidelog stream close orders",
            "tidelog stream purge orders",
            "tidelog stream set orders description=x",
            "tidelog subscription create orders s --start latest",
            "tidelog subscription ls orders",
            "tidelog subscription show orders s",
            "tidelog subscription seek orders s earliest",
            "tidelog subscription rm orders s",
            "tidelog producer ls orders --json",
            "tidelog producer show orders p1",
            "tidelog producer rm orders p1 --yes",
            "tidelog user create alice --root --password-file p",
            "tidelog user set alice --disabled true --root false",
            "tidelog user rm alice --yes",
            "tidelog source create thermometer --description d --owner alice --json",
            "tidelog source rotate 7",
            "tidelog key create ci",
            "tidelog right set orders source:7 ReadWrite",
            "tidelog right ls orders --json",
            "tidelog login alice --password-file p --to f",
            "tidelog logout",
            "tidelog whoami --json",
            "tidelog remote add prod http://broker:4080 --key-file k",
            "tidelog remote use prod",
            "tidelog remote ls --json",
            "tidelog remote show",
            "tidelog remote rm prod",
            "tidelog stream ls --remote prod",
            "tidelog operation show 0b4c",
            "tidelog operation wait 0b4c --timeout 10",
            "tidelog query -X POST -d {} /v1/streams",
            "tidelog bench pub --msgs 1000 --size 100 --clients 16 --outstanding 1",
            "tidelog bench sub --json",
            "tidelog bench e2e --rate 1000 --duration 5",
            "tidelog bench fan --subscribers 10 --rate 100 --no-progress",
            "tidelog verify --seconds 5 --streams 2 --producers 2 --subscribers 2 --rate 500 --seed 7 --keep --json",
            "tidelog verify --carrier rest --pause --no-progress",
            #[cfg(feature = "server")]
            "tidelog store check --data d --stream orders --json",
            "tidelog completion bash",
            "tidelog explain session_fenced",
            #[cfg(feature = "server")]
            "tidelog ca init --dir d --cluster c --host a --host b",
            #[cfg(feature = "server")]
            "tidelog ca create-api-certificate alice --dir d",
            #[cfg(feature = "server")]
            "tidelog ca create-node-certificate 6f2b1c1e-8a44-4c39-9d7e-0d8b5a0f3f11 --dir d --replace",
            #[cfg(feature = "server")]
            "tidelog ca create-server-certificate --dir d --host a,b --replace",
            #[cfg(feature = "server")]
            "tidelog serve --tls-cert c --tls-key k --client-ca a --mtls-listen 127.0.0.1:4523",
            "tidelog stream ls --url https://h:4523 --ca-file a --cert-file c --cert-key-file k",
            #[cfg(feature = "server")]
            "tidelog serve --socket /run/t.sock --data d --listen 127.0.0.1:0",
            #[cfg(feature = "server")]
            "tidelog dev --listen 127.0.0.1:0 --data d",
            "tidelog --url http://127.0.0.1:4080 stream ls",
            "tidelog stream ls --url http://127.0.0.1:4080",
            "tidelog stream ls --socket /run/t.sock --key-file k",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn other_forms_are_usage_errors() {
        for line in [
            "tidelog pub",
            "tidelog sub orders --from yesterday",
            "tidelog pub orders x --header novalue",
            "tidelog nothing",
            "tidelog pub orders x --format yaml",
            "tidelog verify --carrier pigeon",
            "tidelog store check",
            "tidelog user create alice --password hunter2 x",
            "tidelog login",
            "tidelog login alice hunter2",
            "tidelog remote add prod",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
