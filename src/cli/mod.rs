//! The command line: one file a command.

mod admin;
mod apps;
mod check;
mod control;
mod explain;
mod health;
mod key;
mod reload;
mod run;
mod serve;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::shim;
use crate::config::problem::Problem;
use crate::config::render;

/// What `--help` ends with.
const EXAMPLE: &str = "\
A configuration that serves a gunicorn on its default port 8000 to the world on port 8080:

  [listener.http]
  address = \"0.0.0.0:8080\"

  [upstream.app]
  servers = [\"http://127.0.0.1:8000\"]

  [route.all]
  path = \"/{*rest}\"
  upstream = \"app\"

Exit codes: 0 fine, 1 failed while running, 2 wrong usage or configuration.";

/// A reverse-proxy gateway for Python web services: one binary, one TOML file.
#[derive(Debug, Parser)]
#[command(name = "passerelle", version, after_help = EXAMPLE, after_long_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a Python service and serve it, without a configuration file: isolated packages, workers, TLS, health, metrics
    #[command(override_usage = "passerelle serve [TARGET] [OPTIONS]")]
    #[command(
        after_help = "Examples:\n  passerelle serve examples/orders/app.py:app\n  passerelle serve shop.wsgi:application --workers 2-8\n  passerelle serve . --watch"
    )]
    Serve {
        #[command(flatten)]
        serve: serve::ServeArguments,
    },
    /// Serve until SIGTERM or SIGINT; SIGHUP or a change of the file reloads it
    #[command(override_usage = "passerelle run [--config FILE]")]
    #[command(after_help = "Example: passerelle run --config /etc/passerelle/passerelle.toml")]
    Run {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Judge a configuration without serving it: every problem at once, each with its place and what to write instead
    #[command(override_usage = "passerelle check [--config FILE] [--format human|json]")]
    #[command(after_help = "Example: passerelle check --config /etc/passerelle/passerelle.toml")]
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// `json` prints one object a line on standard output for each problem
        #[arg(long, value_enum, default_value_t = check::Format::Human)]
        format: check::Format,
    },
    /// Tell what would become of a request, step by step, with the line of the file that decides each; sends nothing
    #[command(
        override_usage = "passerelle explain [--config FILE] [METHOD] URL [-H 'NAME: VALUE']... [-d BODY|@FILE] \
                                [--client ADDRESS] [--listener NAME] [--format human|json] [--live]"
    )]
    #[command(after_help = "Example: passerelle explain --config /etc/passerelle/passerelle.toml \
                            GET https://api.example.com/orders/42 -H 'Authorization: Bearer …'\n\n\
                            Exit codes: 0 explained, be the request refused or not, 1 the running gateway could not be \
                            asked, 2 wrong usage or configuration.")]
    Explain {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        request: explain::Request,
    },
    /// Make the running gateway read its configuration again, over `control` of `[admin]`
    #[command(override_usage = "passerelle reload [--config FILE]")]
    #[command(after_help = "Example: passerelle reload --config /etc/passerelle/passerelle.toml")]
    Reload {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Put new code of an app in place: new environment, new processes, then the switch, without a gap; what fails before
    /// it leaves the old release serving
    #[command(override_usage = "passerelle release [--config FILE] [--directory DIRECTORY] APP")]
    #[command(after_help = "Example: passerelle release --config /etc/passerelle/passerelle.toml billing")]
    Release {
        #[command(flatten)]
        config: ConfigFile,
        /// The code, if not in `directory` of the app
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
        /// The NAME of [app.NAME]
        app: String,
    },
    /// Go back to the release of an app that served before
    #[command(override_usage = "passerelle rollback [--config FILE] APP")]
    #[command(after_help = "Example: passerelle rollback --config /etc/passerelle/passerelle.toml billing")]
    Rollback {
        #[command(flatten)]
        config: ConfigFile,
        /// The NAME of [app.NAME]
        app: String,
    },
    /// Show the apps that the running gateway runs: releases, workers, memory, restarts
    #[command(override_usage = "passerelle apps [--config FILE] [--format human|json]")]
    #[command(after_help = "Example: passerelle apps --config /etc/passerelle/passerelle.toml")]
    Apps {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long, value_enum, default_value_t = apps::Format::Human)]
        format: apps::Format,
    },
    /// Ask the running gateway on this machine whether it lives: the health check of a container
    #[command(override_usage = "passerelle health [--config FILE]")]
    #[command(after_help = "Example: passerelle health --config /etc/passerelle/passerelle.toml")]
    Health {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// What stands between the gateway and a process of an app
    #[command(name = shim::KEEPER, hide = true)]
    AppKeeper,
    /// What becomes a process of an app
    #[command(name = shim::STARTER, hide = true)]
    AppStarter,
    /// Make API keys
    #[command(subcommand)]
    Key(Key),
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Print a new API key, and the line that lets it in: the key is on the first line of standard output, the entry
    /// for `keys` or a `keys_file` on the second; nothing keeps the key
    #[command(override_usage = "passerelle key new --name NAME [--role ROLE]... [--scope SCOPE]...")]
    #[command(after_help = "Example: passerelle key new --name acme --role partner")]
    New {
        #[command(flatten)]
        wanted: key::NewKey,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file [default: passerelle.toml here, else /etc/passerelle/passerelle.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The configuration file by default, and the one that a service of this machine has.
const HERE: &str = "passerelle.toml";
const OF_THE_SYSTEM: &str = "/etc/passerelle/passerelle.toml";

impl ConfigFile {
    fn path(&self) -> PathBuf {
        let by_default = || by_default(Path::new(HERE), Path::new(OF_THE_SYSTEM)).to_owned();
        self.config.clone().unwrap_or_else(by_default)
    }
}

/// The one here, be there a file or `passerelle serve` in place of one, and where there is neither that of the system.
fn by_default<'a>(here: &'a Path, of_the_system: &'a Path) -> &'a Path {
    if here.exists() || control::socket_of_serve(here).is_some() || !of_the_system.is_file() {
        here
    } else {
        of_the_system
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine,
    /// It failed while running.
    Failed,
    /// Wrong usage or configuration.
    Wrong,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Fine => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Wrong => ExitCode::from(2),
        }
    }
}

/// Runs the command of this process's arguments. Wrong usage ends the process with code 2.
pub fn main() -> ExitCode {
    let exit = match Arguments::parse().command {
        Command::Serve { serve } => serve::serve(&serve),
        Command::Run { config } => run::run(&config.path()),
        Command::Check { config, format } => check::check(&config.path(), format),
        Command::Explain { config, request } => explain::run(&config.path(), &request),
        Command::Reload { config } => reload::reload(&config.path()),
        Command::Release { config, directory, app } => apps::release(&config.path(), app, directory),
        Command::Rollback { config, app } => apps::rollback(&config.path(), app),
        Command::Apps { config, format } => apps::apps(&config.path(), format),
        Command::Health { config } => health::health(&config.path()),
        Command::AppKeeper => kept(shim::keep()),
        Command::AppStarter => return not_started(&shim::start()),
        Command::Key(Key::New { wanted }) => key::new(&wanted),
    };
    exit.into()
}

fn kept(result: std::io::Result<()>) -> Exit {
    match result {
        Ok(()) => Exit::Fine,
        Err(error) => {
            print_error(&format!("passerelle: a process of an app cannot be kept: {error}\n"));
            Exit::Failed
        }
    }
}

/// What the process says that could not become another: its output is read like the other's.
fn not_started(error: &std::io::Error) -> ExitCode {
    print_error(&format!("passerelle: {error}\n"));
    ExitCode::from(shim::NOT_RUN)
}

/// Writes `problems` to standard error, in colour where that is a terminal.
fn print_problems(problems: &[Problem]) {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    print_error(&render::human(problems, !plain && std::io::stderr().is_terminal()));
}

/// Writes to standard error; when that is gone there is nobody to tell.
fn print_error(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_configuration_is_the_one_here_or_that_of_the_system() {
        let home = tempfile::tempdir().unwrap();
        let (here, system) = (home.path().join("passerelle.toml"), home.path().join("system.toml"));
        assert_eq!(by_default(&here, &system), here);
        std::fs::write(&system, "").unwrap();
        assert_eq!(by_default(&here, &system), system);
        std::fs::write(&here, "").unwrap();
        assert_eq!(by_default(&here, &system), here);
    }

    #[test]
    fn exit_codes() {
        for (exit, code) in [(Exit::Fine, 0), (Exit::Failed, 1), (Exit::Wrong, 2)] {
            assert_eq!(format!("{:?}", ExitCode::from(exit)), format!("{:?}", ExitCode::from(code)));
        }
    }
}
