//! `passerelle serve`: a Python service, its workers and the gateway in front of them, with no configuration file. What
//! was found and asked for is written down as one ([`text`]) and served as `run` serves a file.

mod address;
mod certificate;
mod django;
mod sources;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod watch;

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use super::run::Start;
use super::{Exit, print_error};
use crate::config::settings::{AdminSettings, AppServer};
use crate::config::{self, Outside};
use crate::control::systemd::PassedSockets;
use crate::control::{Control, Source};
use address::Asked;
use target::Target;
use text::{Plan, Tls};

/// The file that the text would be kept as.
const KEPT_AS: &str = "passerelle.toml";

/// Ports by custom.
const HTTPS: u16 = 8443;
const HTTP: u16 = 8080;

#[derive(Debug, clap::Args)]
pub(super) struct ServeArguments {
    /// What to serve: FILE.py:CALLABLE, MODULE:CALLABLE, or a folder with a service in it, Django's manage.py or an app.py
    #[arg(value_name = "TARGET", default_value = ".")]
    target: String,
    /// Where to listen: HOST:PORT, or a port on loopback [default: 127.0.0.1:8443, or the next free port]
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse)]
    address: Option<Asked>,
    /// Where TARGET is looked for [default: the working directory]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Processes: a number, or as many as it takes between two [default: twice the cores plus one]
    #[arg(long, value_name = "N|MIN-MAX")]
    workers: Option<Workers>,
    /// Requests that one worker of a WSGI service runs at once [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// What runs the service [default: what fits it]
    #[arg(long, value_name = "SERVER", value_parser = server)]
    server: Option<AppServer>,
    /// Variables for the service, as NAME=value lines
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Serve without TLS
    #[arg(long, conflicts_with = "certificate")]
    no_tls: bool,
    /// A certificate to use, and those of the authorities in between [default: one of the gateway's own making]
    #[arg(long, value_name = "CHAIN", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "KEY", requires = "certificate")]
    key: Option<PathBuf>,
    /// Put new code in place whenever it changes
    #[arg(long)]
    watch: bool,
    /// Print the configuration that this amounts to, ready to keep as passerelle.toml, and serve nothing
    #[arg(long)]
    print_config: bool,
}

fn server(text: &str) -> Result<AppServer, String> {
    let found = AppServer::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, server)| server).ok_or_else(|| format!("one of {}", AppServer::ALL.map(|(name, _)| name).join(", ")))
}

/// How many processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workers {
    min: u32,
    max: u32,
}

impl FromStr for Workers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Workers, &'static str> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|count| *count > 0);
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        match (number(min), number(max)) {
            (Some(min), Some(max)) if min <= max => Ok(Workers { min, max }),
            _ => Err("write a number, or two: 4, 2-8"),
        }
    }
}

/// As the file has it.
impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workers { min, max } = self;
        if min == max { write!(f, "{min}") } else { write!(f, "{{ min = {min}, max = {max} }}") }
    }
}

pub(super) fn serve(serve: &ServeArguments) -> Exit {
    // Before anything else opens a descriptor.
    let passed = PassedSockets::take();
    let plan = match serve.plan() {
        Ok(plan) => plan,
        Err(why) => {
            print_error(&format!("passerelle: {why}\n"));
            return Exit::Wrong;
        }
    };
    let text = plan.text();
    if serve.print_config {
        let printed = std::io::stdout().lock().write_all(text.as_bytes());
        return if printed.is_ok() { Exit::Fine } else { Exit::Failed };
    }
    let source = Source::Text { name: KEPT_AS.to_owned(), base: plan.target.directory.clone(), text };
    let start = Start { source, passed, fresh: true, warns: false };
    start.run(async |control| serving(control, &plan, serve.watch).await)
}

impl ServeArguments {
    /// Finds what is not said.
    fn plan(&self) -> Result<Plan, String> {
        let here = self.directory.clone().unwrap_or_else(|| PathBuf::from("."));
        let target = Target::find(&self.target, &here).map_err(|why| why.to_string())?;
        let state = config::state_directory(&target.directory, KEPT_AS, &Outside::new(&|name| std::env::var_os(name)));
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        // What is printed to be kept does not depend on what happens to run just now.
        let free = |port, except| if self.print_config { port } else { address::free(port, except) };
        let custom = if self.no_tls { HTTP } else { HTTPS };
        let address = self.address.as_ref().map_or_else(|| loopback(free(custom, None)), |asked| asked.address);
        let admin = loopback(free(AdminSettings::DEFAULT_ADDRESS.port(), Some(address.port())));
        for (taken, instead, what) in
            [(custom, address, "the service"), (AdminSettings::DEFAULT_ADDRESS.port(), admin, "/status and /metrics")]
        {
            if instead.port() != taken && !(what == "the service" && self.address.is_some()) {
                print_error(&format!("passerelle: port {taken} is taken, {what} will be on {}\n", instead.port()));
            }
        }
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Ok(Plan {
            asked: self.target.clone(),
            tls: self.tls(&state)?,
            address,
            admin,
            workers: self.workers,
            threads: self.threads,
            server: self.server,
            env_file: self.env_file.as_ref().map(absolute),
            user: user_for(&target.directory),
            target,
        })
    }

    fn tls(&self, state: &Path) -> Result<Option<Tls>, String> {
        if self.no_tls {
            return Ok(None);
        }
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        if let (Some(chain), Some(key)) = (&self.certificate, &self.key) {
            return Ok(Some(Tls { chain: absolute(chain), key: absolute(key), own: false }));
        }
        let mut names = Vec::new();
        if let Some(Asked { address, host }) = &self.address {
            names.extend(host.clone());
            match address.ip() {
                ip if ip.is_unspecified() => names.extend(machine_name()),
                ip if !ip.is_loopback() => names.push(ip.to_string()),
                _ => {}
            }
        }
        let pair = certificate::ensure(&state.join("tls"), &names, SystemTime::now())?;
        Ok(Some(Tls { chain: pair.chain, key: pair.key, own: true }))
    }
}

/// What the machine is called, if that is a name that certificates have.
fn machine_name() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok()?.to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
}

/// Whom root runs the service as: whoever owns its code, or nobody. `None`: only root can choose.
fn user_for(directory: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owner = std::fs::metadata(directory).map_or(0, |metadata| metadata.uid());
    if owner == 0 {
        return Some("nobody".to_owned());
    }
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(owner)).ok().flatten();
    Some(user.map_or(owner.to_string(), |user| user.name))
}

/// A name for sections and labels.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' };
    let name: String = name.chars().map(plain).take(64).collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

/// Waits for the service, says where it is, and follows changes of its code. Comes back where there is nothing to go on
/// with.
async fn serving(control: Arc<Control>, plan: &Plan, watch: bool) -> Exit {
    let name = &plan.target.name;
    match control.apps.begun(name).await {
        Ok(report) => print_error(&greeting(plan, report.wanted, watch)),
        Err(why) => {
            print_error(&format!("passerelle: {name} does not start: {why}\n"));
            if !watch {
                return Exit::Failed;
            }
            print_error("passerelle: waiting for a change of its code\n");
        }
    }
    if watch {
        return watch::run(&control, plan).await;
    }
    std::future::pending().await
}

/// What there is, where, and what to do with it.
fn greeting(plan: &Plan, workers: u32, watch: bool) -> String {
    let Plan { asked, target, address, tls, admin, user, .. } = plan;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let of_many = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    let shown = match address.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    let whom = user.as_ref().map_or("as your own user".to_owned(), |user| format!("as the user {user}"));
    let mut lines = vec![format!("\nServing {} on {scheme}://{address}, {of_many}, {whom}", target.name)];
    if let Some(Tls { chain, own: true, .. }) = tls {
        lines.push(format!("  Its certificate  {}, made here; to trust it:", chain.display()));
        lines.push(format!("                   curl --cacert {} https://{shown}/", chain.display()));
    }
    lines.push(format!("  How it fares     http://{admin}/status, http://{admin}/metrics"));
    let directory = target.directory.display();
    lines
        .push(format!("  Its releases     passerelle apps --config {directory}/{KEPT_AS}; likewise release, rollback"));
    lines.push(format!("  To keep it       passerelle serve {asked} --print-config >{directory}/{KEPT_AS}"));
    let env = target.directory.join(".env");
    if plan.env_file.is_none() && env.is_file() {
        lines.push(format!("  Not read         {}: --env-file {} does", env.display(), env.display()));
    }
    lines.push(match watch {
        true => "  New code is put in place as it is saved. Ctrl-C ends it.\n".to_owned(),
        false => "  Ctrl-C ends it.\n".to_owned(),
    });
    lines.join("\n") + "\n"
}
