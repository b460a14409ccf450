//! The command line: one file per command.

mod api_client;
mod audit;
mod bootstrap_ca;
mod client;
mod demo;
mod device;
mod device_ca;
mod factory;
mod keys;
mod on_renewed;
mod output;
mod pair;
mod renew;
mod request;
mod rotation;
mod serve;
mod token;
mod webhook;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::client::ClientError;
use crate::config::{Config, Overrides, ServeOverrides, Written};

/// Who the audit log names for what is done on the server's own host.
const ACTOR: &str = "command line";

/// A self-hosted EST (RFC 7030) certificate rotation server for device fleets
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// What every command takes.
#[derive(Clone, clap::Args)]
struct Global {
    #[command(flatten)]
    config: Overrides,
    /// Write JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// The server's API
    #[arg(
        long,
        env = "ESTD_URL",
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// The Factory, where there are several
    #[arg(long, env = "ESTD_FACTORY", global = true, value_name = "NAME")]
    factory: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Serve),
    /// Watch a fleet of simulated devices rotate its certificates, in a temporary folder
    Demo(demo::Demo),
    /// Set a Factory up: its root, its server certificates, its first Device CA
    #[command(subcommand)]
    Factory(factory::Factory),
    /// The Factory's Device CAs
    #[command(subcommand)]
    DeviceCa(device_ca::DeviceCa),
    /// CAs outside the Factory's PKI by whose certificates new devices come
    #[command(subcommand)]
    BootstrapCa(bootstrap_ca::BootstrapCa),
    /// The Factory's devices
    #[command(subcommand)]
    Device(device::Device),
    /// Rotations: give many devices new certificates, at a pace
    #[command(subcommand)]
    Rotation(rotation::Rotation),
    /// Requests that wait for an operator's approval
    #[command(subcommand)]
    Request(request::Request),
    /// Who may use the API
    #[command(subcommand)]
    Token(token::Token),
    /// Who is told of what happens
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    /// The ledger's private keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Audit),
    /// An EST client
    #[command(subcommand)]
    Client(client::Client),
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(why) => return failed(&why.into()),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(why) => failed(&why),
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    let done = match cli.command {
        Command::Serve(command) => command.run(&global).await,
        Command::Demo(command) => command.run().await,
        Command::Factory(command) => command.run(&global).await,
        Command::DeviceCa(command) => command.run(&global).await,
        Command::BootstrapCa(command) => command.run(&global).await,
        Command::Device(command) => command.run(&global).await,
        Command::Rotation(command) => return command.run(&global).await,
        Command::Request(command) => command.run(&global).await,
        Command::Token(command) => command.run(&global).await,
        Command::Webhook(command) => command.run(&global).await,
        Command::Keys(command) => command.run(&global).await,
        Command::Audit(command) => return command.run(&global).await,
        Command::Client(command) => command.run(&global).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn failed(why: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(why) {
        // The reader, `head` for instance, has read enough.
        return ExitCode::SUCCESS;
    }
    output::complain(&explain(why));
    ExitCode::FAILURE
}

fn is_broken_pipe(why: &anyhow::Error) -> bool {
    if why.chain().any(<dyn std::error::Error>::is::<ClientError>) {
        // A server has broken the connection.
        return false;
    }
    let io = why.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.last().is_some_and(|why| why.kind() == io::ErrorKind::BrokenPipe)
}

/// An error with its causes, each told once: many libraries repeat the cause in their own text.
fn explain(why: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in why.chain().map(ToString::to_string) {
        if told.contains(&cause) {
            continue;
        }
        if !told.is_empty() {
            told.push_str(": ");
        }
        told.push_str(&cause);
    }
    told
}

impl Global {
    /// The configuration that this command runs by.
    fn config(&self, serve: &ServeOverrides) -> anyhow::Result<Config> {
        let written = Written::read(&self.config, serve)?;
        Config::from_written(written).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the configuration cannot be used:\n  {}", lines.join("\n  "))
        })
    }
}

/// Reads a file that an argument names.
fn read_file(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_no_failure_unless_it_leads_to_a_server() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&broken().into()));
        let host = "est.example.com:443".to_owned();
        let why = ClientError::Connection { host, source: broken() };
        assert!(!is_broken_pipe(&anyhow::Error::from(why).context("not in place yet")));
        assert!(!is_broken_pipe(&io::Error::from(io::ErrorKind::NotFound).into()));
    }
}
