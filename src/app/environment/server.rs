//! Which server runs an entry: what is asked for, else what fits and is there, else what fits.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::settings::AppServer;

/// How an application is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::app) enum Interface {
    Wsgi,
    Asgi,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interface::Wsgi => "WSGI",
            Interface::Asgi => "ASGI",
        })
    }
}

/// What lets gunicorn serve ASGI: the class for its `--worker-class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::app) enum WorkerClass {
    /// Of the package `uvicorn-worker`.
    UvicornWorker,
    /// What older versions of uvicorn had themselves.
    Uvicorn,
}

impl WorkerClass {
    pub(in crate::app) fn as_str(self) -> &'static str {
        match self {
            WorkerClass::UvicornWorker => "uvicorn_worker.UvicornWorker",
            WorkerClass::Uvicorn => "uvicorn.workers.UvicornWorker",
        }
    }
}

/// What an environment has of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) servers: Vec<AppServer>,
    pub(super) worker: Option<WorkerClass>,
}

/// What is to run the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Installed(AppServer),
    /// It would have to be added.
    Missing(AppServer),
}

/// The servers for each interface, the default first.
fn fitting(interface: Interface) -> &'static [AppServer] {
    match interface {
        Interface::Wsgi => &[AppServer::Gunicorn, AppServer::Granian, AppServer::Uwsgi],
        Interface::Asgi => &[AppServer::Uvicorn, AppServer::Granian],
    }
}

/// `named`: the packages that the app asks for by name. What came along with another package is no choice of anybody.
///
/// # Errors
/// What is asked for cannot serve the entry: what can.
pub(super) fn choose(
    wanted: Option<AppServer>,
    interface: Interface,
    installed: &Installed,
    named: &BTreeSet<String>,
) -> Result<Choice, String> {
    let is_there = |server: &AppServer| installed.servers.contains(server);
    let Some(wanted) = wanted else {
        let fitting = fitting(interface);
        let is_named = |server: &AppServer| packages(*server).iter().any(|name| named.contains(*name));
        let chosen = fitting.iter().find(|server| is_there(server) && is_named(server));
        let chosen = chosen.or_else(|| fitting.iter().find(|server| is_there(server)));
        return Ok(match (chosen, interface) {
            (Some(server), _) => Choice::Installed(*server),
            (None, Interface::Wsgi) => Choice::Missing(AppServer::Gunicorn),
            (None, Interface::Asgi) => Choice::Missing(AppServer::Uvicorn),
        });
    };
    match (wanted, interface) {
        (AppServer::Uvicorn, Interface::Wsgi) => {
            return Err("uvicorn serves ASGI applications, and the entry is a WSGI application: take \
                        server = \"gunicorn\", or leave `server` out"
                .to_owned());
        }
        (AppServer::Uwsgi, Interface::Asgi) => {
            return Err("uWSGI serves WSGI applications, and the entry is an ASGI application: take \
                        server = \"uvicorn\", or leave `server` out"
                .to_owned());
        }
        // Of itself, it serves WSGI alone.
        (AppServer::Gunicorn, Interface::Asgi) if installed.worker.is_none() => return Ok(Choice::Missing(wanted)),
        (AppServer::Gunicorn | AppServer::Granian, _)
        | (AppServer::Uvicorn, Interface::Asgi)
        | (AppServer::Uwsgi, Interface::Wsgi) => {}
    }
    Ok(if is_there(&wanted) { Choice::Installed(wanted) } else { Choice::Missing(wanted) })
}

/// The packages that bring a server.
pub(super) fn packages(server: AppServer) -> &'static [&'static str] {
    match server {
        AppServer::Gunicorn => &["gunicorn"],
        AppServer::Uvicorn => &["uvicorn"],
        AppServer::Granian => &["granian"],
        AppServer::Uwsgi => &["uwsgi", "pyuwsgi"],
    }
}

/// What is installed for a server that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) packages: &'static [&'static str],
    /// What makes it fast and whole, which it can do without where that cannot be had.
    pub(super) beside: &'static [&'static str],
}

pub(super) fn added(server: AppServer, interface: Interface) -> Added {
    const FAST: &[&str] = &["httptools", "uvloop", "websockets"];
    let (packages, beside): (&[&str], &[&str]) = match (server, interface) {
        (AppServer::Gunicorn, Interface::Wsgi) => (&["gunicorn"], &[]),
        (AppServer::Gunicorn, Interface::Asgi) => (&["gunicorn", "uvicorn-worker"], FAST),
        (AppServer::Uvicorn, _) => (&["uvicorn"], FAST),
        (AppServer::Granian, _) => (&["granian"], &[]),
        (AppServer::Uwsgi, _) => (&["pyuwsgi"], &[]),
    };
    Added { packages, beside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(servers: &[AppServer]) -> Installed {
        Installed { servers: servers.to_vec(), worker: None }
    }

    fn named(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_fits_and_is_there_is_taken() {
        use AppServer::{Granian, Gunicorn, Uvicorn, Uwsgi};
        let none = named(&[]);
        let choose = |interface, servers: &[AppServer], named: &BTreeSet<String>| {
            super::choose(None, interface, &installed(servers), named).unwrap()
        };
        assert_eq!(choose(Interface::Wsgi, &[], &none), Choice::Missing(Gunicorn));
        assert_eq!(choose(Interface::Asgi, &[], &none), Choice::Missing(Uvicorn));
        assert_eq!(choose(Interface::Asgi, &[Gunicorn], &none), Choice::Missing(Uvicorn));
        assert_eq!(choose(Interface::Wsgi, &[Uvicorn, Uwsgi], &none), Choice::Installed(Uwsgi));
        assert_eq!(choose(Interface::Asgi, &[Granian], &none), Choice::Installed(Granian));
        assert_eq!(choose(Interface::Asgi, &[Uvicorn, Granian], &none), Choice::Installed(Uvicorn));
        // What is asked for by name comes before what came along.
        let granian = named(&["granian"]);
        assert_eq!(choose(Interface::Asgi, &[Uvicorn, Granian], &granian), Choice::Installed(Granian));
        let pyuwsgi = named(&["pyuwsgi"]);
        assert_eq!(choose(Interface::Wsgi, &[Gunicorn, Uwsgi], &pyuwsgi), Choice::Installed(Uwsgi));
    }

    #[test]
    fn what_is_asked_for_must_be_able_to() {
        let choose = |wanted, interface, installed: &Installed| {
            super::choose(Some(wanted), interface, installed, &BTreeSet::new())
        };
        let nothing = Installed::default();
        assert_eq!(choose(AppServer::Uwsgi, Interface::Wsgi, &nothing), Ok(Choice::Missing(AppServer::Uwsgi)));
        assert_eq!(choose(AppServer::Granian, Interface::Asgi, &nothing), Ok(Choice::Missing(AppServer::Granian)));
        for (wanted, interface, instead) in
            [(AppServer::Uvicorn, Interface::Wsgi, "gunicorn"), (AppServer::Uwsgi, Interface::Asgi, "uvicorn")]
        {
            let why = choose(wanted, interface, &nothing).unwrap_err();
            assert!(why.contains(&format!("server = \"{instead}\"")), "{why}");
        }
        // Without its worker class, gunicorn would serve it as what it is not.
        let alone = installed(&[AppServer::Gunicorn]);
        assert_eq!(choose(AppServer::Gunicorn, Interface::Asgi, &alone), Ok(Choice::Missing(AppServer::Gunicorn)));
        let worker = Installed { servers: vec![AppServer::Gunicorn], worker: Some(WorkerClass::UvicornWorker) };
        assert_eq!(choose(AppServer::Gunicorn, Interface::Asgi, &worker), Ok(Choice::Installed(AppServer::Gunicorn)));
    }
}
