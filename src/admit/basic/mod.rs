//! User names and passwords (RFC 7617), against an htpasswd file.
//!
//! A password that was right is remembered for a while, by each worker and by all of them; any other is hashed on
//! threads of its own, which a flood of wrong ones fills without touching anything else.

mod htpasswd;
mod pool;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret, SecretString};

use self::htpasswd::Htpasswd;
use self::pool::Pool;
use super::auth::{Building, Failure, Judged};
use super::digest::{Digest, Mark, digest};
use super::identity::{Identity, Method};
use super::verified::{Holds, Prover, Seen};
use crate::config::problem::Problem;
use crate::config::read_bounded;
use crate::config::settings::BasicSettings;
use crate::worker::Worker;

const MAX_FILE: u64 = 16 * 1024 * 1024;

/// How long a password that was right is taken without being hashed again. A change of the file ends it at once.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Passwords that were right not long ago, for workers that have not seen them, and for those that wait in line with
/// the same one.
const MOST_RECENT: usize = 1024;

/// Long enough for any passphrase. SHA-crypt takes time by the square of the length.
const LONGEST: usize = 512;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `kind = "basic"`
pub struct Basic {
    roles: BTreeMap<String, Vec<String>>,
    /// Of the file as it was read.
    file: Digest,
    users: Arc<Users>,
    /// Kept over reloads, so that there are no more threads for them.
    pool: Arc<Pool>,
}

/// Everybody in the file as it was read.
struct Users {
    passwords: Htpasswd,
    identities: HashMap<String, Arc<Identity>>,
    prover: Prover,
    /// Random: what is remembered of passwords cannot be compared with lists of them.
    salt: [u8; 32],
    recent: Mutex<HashMap<Digest, Instant>>,
}

/// Whose password was right, and when that was found.
struct Proved {
    identity: Arc<Identity>,
    at: Instant,
}

/// A user name and a password, decoded.
struct Shown {
    user: String,
    password: SecretString,
}

impl Basic {
    /// Reads the file. `None`: its problems are told.
    pub fn build(
        auth: &Arc<str>,
        settings: &BasicSettings,
        before: Option<&Basic>,
        building: &mut Building<'_>,
    ) -> Option<Basic> {
        let path = settings.htpasswd.value.display();
        let mut refuse = |message: String, help: &'static str| {
            building.problems.push(Problem::error(&settings.htpasswd.span, message).help(help));
        };
        let text = read_bounded(&settings.htpasswd.value, MAX_FILE)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not valid UTF-8".to_owned()));
        let text = match text {
            Ok(text) => text,
            Err(reason) => {
                let help = "paths are relative to the configuration file";
                refuse(format!("the passwords in `{path}` cannot be read: {reason}"), help);
                return None;
            }
        };
        let passwords = match Htpasswd::parse(&text) {
            Ok(passwords) => passwords,
            Err(wrong) => {
                for wrong in wrong {
                    let line = wrong.line.map_or_else(String::new, |line| format!(" line {line}"));
                    refuse(format!("`{path}`{line}: {}", wrong.message), wrong.help);
                }
                return None;
            }
        };
        for user in settings.named.iter().filter(|user| !passwords.users().any(|known| known == user.value)) {
            let message = format!("`roles` names `{}`, who is not in `{path}`", user.value.escape_debug());
            building.problems.push(Problem::warning(&user.span, message));
        }
        let pool = before.map(|before| Arc::clone(&before.pool)).unwrap_or_default();
        let file = digest([text.as_bytes()]);
        let users = match before.filter(|before| before.file == file && before.roles == settings.roles) {
            Some(before) => Arc::clone(&before.users),
            None => Arc::new(Users::new(auth, settings, passwords)?),
        };
        Some(Basic { roles: settings.roles.clone(), file, users, pool })
    }

    /// Whoever showed this not long ago.
    pub fn known(&self, worker: &Worker, shown: &[u8]) -> Option<Seen> {
        worker.admission.verified.get(self.users.prover, 0, Mark::of(shown))
    }

    /// Another auth took what is foreign here.
    pub fn taken_elsewhere(&self, worker: &Worker, shown: &[u8], why: &'static str) {
        worker.admission.verified.foreign(self.users.prover, 0, Mark::of(shown), why, REMEMBERED);
    }

    /// # Errors
    /// They do not fit, or too many wait to be told so.
    pub async fn judge(&self, worker: &Worker, shown: &[u8]) -> Judged {
        let Proved { identity, at } = self.prove(shown).await?;
        let holds = Holds { until: None, at_most: REMEMBERED.saturating_sub(at.elapsed()) };
        worker.admission.verified.put(self.users.prover, 0, Mark::of(shown), &identity, holds);
        Ok(identity)
    }

    /// The same without a worker that remembers it.
    ///
    /// # Errors
    /// Likewise.
    pub async fn judge_for_nobody(&self, shown: &[u8]) -> Judged {
        self.prove(shown).await.map(|proved| proved.identity)
    }

    async fn prove(&self, shown: &[u8]) -> Result<Proved, Failure> {
        let key = self.users.key(shown);
        let Some(shown) = Shown::parse(shown) else {
            return Err(Failure::Invalid("this is no user name and password"));
        };
        // Whoever has been let in does not stand in line behind those who guess.
        let proved = match self.users.proved(&key, &shown) {
            Some(proved) => proved,
            None => {
                let users = Arc::clone(&self.users);
                let judged = self.pool.ask(move || users.judge(&key, &shown)).await;
                judged
                    .map_err(|busy| Failure::Unavailable(busy.to_string()))?
                    // Another file is another prover.
                    .ok_or(Failure::Foreign("the user name or the password is wrong"))?
            }
        };
        Ok(proved)
    }
}

impl Users {
    /// `None` without randomness.
    fn new(auth: &Arc<str>, settings: &BasicSettings, passwords: Htpasswd) -> Option<Users> {
        let mut salt = [0; 32];
        aws_lc_rs::rand::fill(&mut salt).ok()?;
        let identities = passwords.users().map(|user| {
            let roles = settings.roles.get(user).into_iter().flatten().cloned();
            (user.to_owned(), Arc::new(Identity::new(auth, Method::Basic, user, roles, [])))
        });
        let identities = identities.collect();
        Some(Users { passwords, identities, prover: Prover::new(), salt, recent: Mutex::default() })
    }

    /// What a credential is remembered by beyond one worker.
    fn key(&self, shown: &[u8]) -> Digest {
        digest([&self.salt, shown])
    }

    /// Whoever's password this was not long ago.
    fn proved(&self, key: &Digest, shown: &Shown) -> Option<Proved> {
        let at = self.recent().get(key).copied().filter(|at| at.elapsed() < REMEMBERED)?;
        Some(Proved { identity: Arc::clone(self.identities.get(&shown.user)?), at })
    }

    /// On a thread where it may take its time.
    fn judge(&self, key: &Digest, shown: &Shown) -> Option<Proved> {
        // Somebody further ahead in the line may have shown the same.
        if let Some(proved) = self.proved(key, shown) {
            return Some(proved);
        }
        if !self.passwords.knows(&shown.user, shown.password.expose_secret()) {
            return None;
        }
        let (identity, at) = (Arc::clone(self.identities.get(&shown.user)?), Instant::now());
        let mut recent = self.recent();
        if recent.len() >= MOST_RECENT {
            recent.clear();
        }
        recent.insert(*key, at);
        Some(Proved { identity, at })
    }

    fn recent(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// RFC 7617 section 2: base64, UTF-8, no control characters, and the first colon separates.
    fn parse(text: &[u8]) -> Option<Shown> {
        // Of base64, a third more.
        if text.len() > LONGEST * 2 {
            return None;
        }
        let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        let fine = text.len() <= LONGEST && !text.chars().any(char::is_control);
        fine.then(|| Shown { user: user.to_owned(), password: SecretString::from(password) })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::htpasswd::tests::BCRYPT;
    use super::*;
    use crate::config::settings::At;
    use crate::observe::metrics::Metrics;
    use crate::upstream::tls::SystemRoots;

    fn shown(text: &[u8]) -> Option<(String, String)> {
        let shown = Shown::parse(text)?;
        Some((shown.user, shown.password.expose_secret().to_owned()))
    }

    #[test]
    fn what_is_shown_is_read_as_rfc_7617_says() {
        let read = |text: &str| shown(base64::engine::general_purpose::STANDARD.encode(text).as_bytes());
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(shown(b"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(shown(b"QWxhZGRpbjpvcGVuIHNlc2FtZQ"), pair("Aladdin", "open sesame"));
        assert_eq!(shown(b"dGVzdDoxMjPCow=="), pair("test", "123£"));
        assert_eq!(read("a:b:c"), pair("a", "b:c"));
        assert_eq!(read(":"), pair("", ""));
        assert_eq!(read(&format!("a:{}", "b".repeat(LONGEST - 2))).map(|(user, _)| user).as_deref(), Some("a"));
        for wrong in ["", "a", "a:b\n", "a\0:b", &format!("a:{}", "b".repeat(LONGEST - 1))] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        for wrong in [&b"\xff"[..], b"a:b", b"dGVzdDoxMjOj", b"QWxh ZGRpbjpvcGVu", &[b'A'; 5000]] {
            assert_eq!(shown(wrong), None, "{wrong:?}");
        }
    }

    fn build(path: &Path, before: Option<&Basic>, roles: &[&str]) -> Result<(Basic, usize), Vec<String>> {
        let settings = BasicSettings {
            htpasswd: At { value: path.to_owned(), span: crate::upstream::testing::span() },
            roles: roles.iter().map(|user| ((*user).to_owned(), vec!["admin".to_owned()])).collect::<BTreeMap<_, _>>(),
            named: roles
                .iter()
                .map(|user| At { value: (*user).to_owned(), span: crate::upstream::testing::span() })
                .collect(),
        };
        let mut problems = Vec::new();
        let mut building =
            Building { metrics: &Metrics::new(1), system_roots: &SystemRoots::default(), problems: &mut problems };
        let built = Basic::build(&Arc::from("ops"), &settings, before, &mut building);
        let told = problems.iter().map(|problem| problem.message.clone()).collect();
        built.map(|built| (built, problems.len())).ok_or(told)
    }

    #[test]
    fn what_is_remembered_ends_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ops");
        std::fs::write(&path, format!("alice:{BCRYPT}\n")).unwrap();
        let (first, warnings) = build(&path, None, &["alice", "bob"]).ok().unwrap();
        assert_eq!(warnings, 1, "bob is not there");
        let (same, _) = build(&path, Some(&first), &["alice", "bob"]).ok().unwrap();
        assert_eq!(first.users.prover, same.users.prover);
        let (other_roles, _) = build(&path, Some(&first), &[]).ok().unwrap();
        assert_ne!(first.users.prover, other_roles.users.prover);
        std::fs::write(&path, format!("alice:{BCRYPT}\nbob:{BCRYPT}\n")).unwrap();
        let (other_file, _) = build(&path, Some(&first), &["alice", "bob"]).ok().unwrap();
        assert_ne!(first.users.prover, other_file.users.prover);
        assert!(Arc::ptr_eq(&first.pool, &other_file.pool));
    }

    #[test]
    fn who_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ops");
        std::fs::write(&path, format!("alice:{BCRYPT}\n")).unwrap();
        let (basic, _) = build(&path, None, &["alice"]).ok().unwrap();
        let judge = |user: &str, password: &str| {
            let shown = Shown { user: user.to_owned(), password: SecretString::from(password) };
            let judged = basic.users.judge(&digest([format!("{user}:{password}").as_bytes()]), &shown);
            judged.map(|proved| proved.identity)
        };
        for _ in 0..2 {
            let alice = judge("alice", "secret").unwrap();
            assert!(alice.subject() == "alice" && alice.has_role("admin"));
            assert!(judge("alice", "Secret").is_none() && judge("bob", "secret").is_none());
        }
    }

    /// Workers share what was right, whatever waits in line.
    #[tokio::test]
    async fn a_password_that_another_worker_has_seen_passes_a_line_that_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ops");
        std::fs::write(&path, format!("alice:{BCRYPT}\n")).unwrap();
        let (basic, _) = build(&path, None, &["alice"]).ok().unwrap();
        let worker = || {
            crate::server::testing::worker(
                "[listener.http]\naddress = \"127.0.0.1:0\"\n[route.all]\npath = \"/\"\nrespond = { status = 204 }\n",
            )
        };
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let (right, wrong) = (encoded("alice:secret"), encoded("alice:Secret"));
        let (first, other) = (worker(), worker());
        assert!(basic.judge(&first, right.as_bytes()).await.is_ok());
        let basic = Arc::new(basic);
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let line: Vec<_> = (0..64)
            .map(|_| {
                let (basic, gate) = (Arc::clone(&basic), Arc::clone(&gate));
                tokio::spawn(async move { basic.pool.ask(move || gate.lock().map(|gate| gate.recv()).is_ok()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(matches!(basic.judge(&other, wrong.as_bytes()).await, Err(Failure::Unavailable(_))));
        assert_eq!(basic.judge(&other, right.as_bytes()).await.unwrap().subject(), "alice");
        assert!(basic.known(&other, right.as_bytes()).is_some());
        line.iter().for_each(tokio::task::JoinHandle::abort);
        drop(open);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ops");
        std::fs::write(&path, "alice:hidden\nbob:$apr1$hidden$hidden\n").unwrap();
        let told = build(&path, None, &[]).err().unwrap();
        assert_eq!(told.len(), 2);
        assert!(told[1].contains("line 2: this kind of hash is not taken: MD5"), "{told:?}");
        assert!(told.iter().all(|line| !line.contains("hidden")), "{told:?}");
        std::fs::remove_file(&path).unwrap();
        assert!(build(&path, None, &[]).err().unwrap()[0].ends_with("cannot be read: no such file"));
    }
}
