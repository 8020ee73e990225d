//! `passerelle serve`: a Python service, its workers and the gateway in front of them, with no configuration file. What
//! was found and asked for is written down as one ([`text`]) and served as `run` serves a file.

mod account;
mod address;
mod certificate;
mod command_line;
mod django;
mod greeting;
mod hold;
mod sources;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod watch;

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use super::run::Start;
use super::{Exit, print_error};
use crate::config::settings::{AdminSettings, AppServer};
use crate::config::{self, Outside};
use crate::control::systemd::PassedSockets;
use crate::control::{Control, HangUp, Source};
use address::Asked;
use greeting::greeting;
use target::Target;
use text::{Health, PackagesFrom, Plan, Tls};

/// The file that the text would be kept as.
const KEPT_AS: &str = "passerelle.toml";

/// Where a certificate of the gateway's own making is, beneath the state directory.
const OWN_TLS: &str = "tls";

/// Ports by custom.
const HTTPS: u16 = 8443;
const HTTP: u16 = 8080;

#[derive(Debug, clap::Args)]
pub(super) struct ServeArguments {
    /// What to serve: FILE.py:CALLABLE, MODULE:CALLABLE, or a folder with a service in it, Django's manage.py or an app.py
    #[arg(value_name = "TARGET", default_value = ".")]
    target: String,
    /// Where to listen: HOST:PORT, or a port on loopback [default: 127.0.0.1:8443, or the next free port]
    #[arg(long, short = 'b', alias = "bind", value_name = "HOST:PORT", value_parser = address::parse)]
    address: Option<Asked>,
    /// Where TARGET is looked for [default: the working directory]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Processes: a number, or as many as it takes between two [default: twice the cores plus one]
    #[arg(long, short = 'w', value_name = "N|MIN-MAX")]
    workers: Option<Workers>,
    /// Requests that one worker of a WSGI service runs at once [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// What runs the service [default: what fits it]
    #[arg(long, value_name = "SERVER", value_parser = server)]
    server: Option<AppServer>,
    /// A requirements file, pyproject.toml or uv.lock to install [default: the one beside the code]
    #[arg(long, value_name = "FILE")]
    requirements: Option<PathBuf>,
    /// The interpreter of an environment that is there, to which nothing is added
    #[arg(long, value_name = "FILE", conflicts_with = "requirements")]
    python: Option<PathBuf>,
    /// A variable for the service; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Variables for the service, as NAME=value lines
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// A path that answers 2xx or 3xx when the service is well [default: one that its sources show]
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
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
    #[arg(long, alias = "reload")]
    watch: bool,
    /// Print the configuration that this amounts to, ready to keep as passerelle.toml, and serve nothing
    #[arg(long)]
    print_config: bool,
}

fn server(text: &str) -> Result<AppServer, String> {
    let found = AppServer::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, server)| server).ok_or_else(|| format!("one of {}", AppServer::ALL.map(|(name, _)| name).join(", ")))
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
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
    let wrong = |why: String, exit: Exit| {
        print_error(&format!("passerelle: {why}\n"));
        exit
    };
    let mut plan = match serve.plan() {
        Ok(plan) => plan,
        Err(why) => return wrong(why, Exit::Wrong),
    };
    if serve.print_config {
        // What is printed is ready to be kept. The certificate of one that serves is left alone.
        if let Ok(_folder) = hold::Folder::take(&plan.target.directory, &plan.state)
            && let Err(why) = serve.ensure_certificate(&plan)
        {
            return wrong(why, Exit::Failed);
        }
        let printed = std::io::stdout().lock().write_all(plan.text().as_bytes());
        return if printed.is_ok() { Exit::Fine } else { Exit::Failed };
    }
    let held = match serve.take(&mut plan) {
        Ok(held) => held,
        Err(why) => return wrong(why, Exit::Failed),
    };
    let text = plan.text();
    let source = Source::Text { name: KEPT_AS.to_owned(), base: plan.target.directory.clone(), text: text.clone() };
    let start = Start {
        source,
        passed,
        held: held.sockets,
        fresh: true,
        tell: &|problems, is_usable| {
            if !is_usable {
                command_line::tell(problems, &text);
            }
        },
        hang_up: if ignores_hang_up() { HangUp::MeansNothing } else { HangUp::Ends },
        hushed: true,
    };
    start.run(async |control| serving(control, &plan, serve.watch).await)
}

/// What is held for as long as the process lives, so that no other comes between.
struct Held {
    sockets: Vec<TcpListener>,
    _folder: hold::Folder,
}

impl ServeArguments {
    /// Finds what is not said. Nothing is changed.
    fn plan(&self) -> Result<Plan, String> {
        let here = self.directory.clone().unwrap_or_else(|| PathBuf::from("."));
        let target = Target::find(&self.target, &here).map_err(|why| why.to_string())?;
        if let Some(why) = account::too_wide(&target.directory) {
            return Err(format!("{why}, and all of it would be copied for it: put it into a folder of its own"));
        }
        let state = config::state_directory(&target.directory, KEPT_AS, &Outside::new(&|name| std::env::var_os(name)));
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let packages = match (&self.requirements, &self.python) {
            (Some(file), _) => Some(PackagesFrom::Requirements(absolute(file))),
            (None, Some(file)) => Some(PackagesFrom::Interpreter(absolute(file))),
            (None, None) => None,
        };
        let words = std::env::args_os().skip(2).map(|word| word.to_string_lossy().into_owned());
        Ok(Plan {
            asked: command_line::asked(words),
            tls: self.tls(&state),
            address: self.address.as_ref().map_or_else(|| loopback(self.custom()), |asked| asked.address),
            // What is printed to be kept does not depend on what happens to run just now.
            admin: AdminSettings::DEFAULT_ADDRESS,
            workers: self.workers,
            threads: self.threads,
            server: self.server,
            packages,
            env: self.env.clone(),
            env_file: self.env_file.as_ref().map(absolute),
            user: account::user_for(&target.directory),
            health: match (&self.health, &target.health) {
                (Some(path), _) => Some(Health::Asked(path.clone())),
                (None, Some(path)) => Some(Health::Found(path.clone())),
                (None, None) => None,
            },
            target,
            state,
        })
    }

    /// The port by custom.
    fn custom(&self) -> u16 {
        if self.no_tls { HTTP } else { HTTPS }
    }

    fn tls(&self, state: &Path) -> Option<Tls> {
        if self.no_tls {
            return None;
        }
        if let (Some(chain), Some(key)) = (&self.certificate, &self.key) {
            return Some(Tls { chain: absolute(chain), key: absolute(key), own: false });
        }
        let certificate::Pair { chain, key } = certificate::pair(&state.join(OWN_TLS));
        Some(Tls { chain, key, own: true })
    }

    /// Takes the folder and the ports, and only then makes what others might be using: a certificate. The plan says
    /// afterwards what was had.
    fn take(&self, plan: &mut Plan) -> Result<Held, String> {
        let folder = hold::Folder::take(&plan.target.directory, &plan.state)?;
        let service = match &self.address {
            Some(asked) => hold::at(asked.address)?,
            None => hold::next_to(self.custom())?,
        };
        let admin = hold::next_to(AdminSettings::DEFAULT_ADDRESS.port())?;
        let of = |socket: &TcpListener| socket.local_addr().map_err(|error| error.to_string());
        let (wanted_admin, wanted) = (plan.admin, plan.address);
        (plan.address, plan.admin) = (of(&service)?, of(&admin)?);
        if self.address.is_none() && plan.address != wanted {
            print_error(&format!("passerelle: {wanted} is taken, the service will be on {}\n", plan.address));
            // So that what is kept is what was served.
            plan.asked = format!("{} --address {}", plan.asked, plan.address).trim_start().to_owned();
        }
        if plan.admin != wanted_admin {
            print_error(&format!(
                "passerelle: {wanted_admin} is taken, /status and /metrics will be on {}\n",
                plan.admin
            ));
        }
        self.ensure_certificate(plan)?;
        folder.is_at(&plan.url());
        Ok(Held { sockets: vec![service, admin], _folder: folder })
    }

    /// Where the folder is taken.
    fn ensure_certificate(&self, plan: &Plan) -> Result<(), String> {
        if plan.tls.as_ref().is_some_and(|tls| tls.own) {
            certificate::ensure(&plan.state.join(OWN_TLS), &self.names(), SystemTime::now())?;
        }
        Ok(())
    }

    /// What the service is called, beyond what every machine calls itself.
    fn names(&self) -> Vec<String> {
        let Some(Asked { address, host }) = &self.address else { return Vec::new() };
        let of_address = match address.ip() {
            ip if ip.is_unspecified() => machine_name(),
            ip if ip.is_loopback() => None,
            ip => Some(ip.to_string()),
        };
        host.iter().cloned().chain(of_address).collect()
    }
}

/// Without following links: an environment's interpreter is one.
fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

/// Whether it was started by `nohup`, or the like.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let bits = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    // SIGHUP is the first of them.
    bits & 1 == 1
}

/// What the machine is called, if that is a name that certificates have.
fn machine_name() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok()?.to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
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
    let greet = |workers| {
        control.unhush();
        print_error(&greeting(plan, workers, watch));
    };
    let begins = async {
        match control.apps.begun(name).await {
            Ok(report) => greet(report.wanted),
            Err(why) => {
                print_error(&format!("passerelle: {name} does not start: {why}\n"));
                if !watch {
                    return Exit::Failed;
                }
                print_error("passerelle: it is tried again, and at once when its code changes\n");
                if let Ok(report) = control.apps.begun_at_last(name).await {
                    greet(report.wanted);
                }
            }
        }
        std::future::pending().await
    };
    if !watch {
        return begins.await;
    }
    // Also while it starts for the first time: what is wrong with it may be mended by then.
    tokio::select! {
        exit = begins => exit,
        exit = watch::run(&control, plan) => exit,
    }
}
