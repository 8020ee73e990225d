//! htpasswd files: one `name:hash` a line, of hashes that are slow to guess. What is not is refused when the file is
//! read, and so are costs that would stall whoever verifies them. No message shows a name or a hash.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};
use sha_crypt::ShaCrypt;

/// About a second each on the machines of today; twelve is usual.
const BCRYPT_COST: u32 = 14;
const SHA_CRYPT_ROUNDS: u32 = 1_000_000;
/// In KiB; as much again for each further pass counts.
const ARGON2_MEMORY: u32 = 256 * 1024;
const ARGON2_WORK: u64 = 1024 * 1024;
const ARGON2_LANES: u32 = 16;

/// bcrypt looks at no more of a password.
const BCRYPT_BYTES: usize = 72;

const AGAIN: &str = "make it anew: htpasswd -B FILE USER";

/// Everybody in a file.
#[derive(Default)]
pub(super) struct Htpasswd {
    users: HashMap<String, usize>,
    hashes: Vec<Hash>,
    /// Keyed at random: who stands in for an unknown user is nothing to choose.
    stand_in: RandomState,
}

/// What is wrong with a line, or with the file as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: Option<usize>,
    pub(super) message: String,
    pub(super) help: &'static str,
}

enum Hash {
    Bcrypt(String),
    ShaCrypt(String),
    Argon2(Box<PasswordHash>),
}

impl Htpasswd {
    /// # Errors
    /// Everything that is wrong with the file.
    pub(super) fn parse(text: &str) -> Result<Htpasswd, Vec<Wrong>> {
        let mut file = Htpasswd::default();
        let mut wrong = Vec::new();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut add = || {
                let (user, hash) = line.split_once(':').ok_or(("this is not `name:hash`".to_owned(), AGAIN))?;
                if user.is_empty() || user.chars().any(char::is_control) {
                    return Err(("the name is empty or holds control characters".to_owned(), AGAIN));
                }
                if let Some(earlier) = lines.insert(user, number) {
                    return Err((format!("line {earlier} has the same name"), "take one of them out"));
                }
                // What follows a further colon is a remark, as Apache has it.
                let hash = Hash::parse(hash.split(':').next().unwrap_or_default())?;
                file.users.insert(user.to_owned(), file.hashes.len());
                file.hashes.push(hash);
                Ok(())
            };
            if let Err((message, help)) = add() {
                wrong.push(Wrong { line: Some(number), message, help });
            }
        }
        if wrong.is_empty() && file.users.is_empty() {
            let message = "there is nobody in it".to_owned();
            wrong.push(Wrong { line: None, message, help: "add somebody: htpasswd -B FILE USER" });
        }
        if wrong.is_empty() { Ok(file) } else { Err(wrong) }
    }

    pub(super) fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Whether this is the password of this user. An unknown user takes as long as one of those that are known, always
    /// the same one: nobody learns from a clock who is known.
    pub(super) fn knows(&self, user: &str, password: &str) -> bool {
        let known = self.users.get(user).copied();
        let at = known.unwrap_or_else(|| {
            let random = usize::try_from(self.stand_in.hash_one(user) >> 1).unwrap_or_default();
            random.checked_rem(self.hashes.len()).unwrap_or_default()
        });
        let fits = self.hashes.get(at).is_some_and(|hash| hash.fits(password));
        fits && known.is_some()
    }
}

type Refused = (String, &'static str);

impl Hash {
    fn parse(text: &str) -> Result<Hash, Refused> {
        let scheme = text.strip_prefix('$').and_then(|rest| rest.split('$').next());
        match scheme {
            Some("2a" | "2b" | "2y") => bcrypt(text),
            Some("5" | "6") => sha_crypt(text),
            Some("argon2i" | "argon2d" | "argon2id") => argon2(text),
            Some("apr1" | "1") => Err(refused("MD5 is guessed within minutes")),
            Some("2x") => Err(refused("$2x$ marks the hashes of a bcrypt that was broken")),
            Some(_) => Err(refused("bcrypt, SHA-crypt ($5$, $6$) and argon2 are taken, and nothing else")),
            None if text.starts_with("{SHA}") => Err(refused("SHA-1 without a salt is guessed within seconds")),
            None => Err(refused("a password as it stands, or a hash of crypt(3), which counts eight characters")),
        }
    }

    /// Takes the time that the hash is made to take.
    fn fits(&self, password: &str) -> bool {
        match self {
            Hash::Bcrypt(hash) => {
                let fits = bcrypt::verify(password, hash).unwrap_or(false);
                // A longer one would be as good as any other that begins like it.
                fits && password.len() <= BCRYPT_BYTES
            }
            Hash::ShaCrypt(hash) => ShaCrypt::default().verify_password(password.as_bytes(), hash.as_str()).is_ok(),
            Hash::Argon2(hash) => Argon2::default().verify_password(password.as_bytes(), &**hash).is_ok(),
        }
    }
}

fn refused(why: &str) -> Refused {
    (format!("this kind of hash is not taken: {why}"), AGAIN)
}

fn malformed(kind: &str) -> Refused {
    (format!("this is no whole hash of {kind}"), AGAIN)
}

fn bcrypt(text: &str) -> Result<Hash, Refused> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| malformed("bcrypt"))?;
    match parts.get_cost() {
        4..=BCRYPT_COST => Ok(Hash::Bcrypt(text.to_owned())),
        cost => Err((
            format!("a cost of {cost}: 4 to {BCRYPT_COST} are taken"),
            "make it anew: htpasswd -B -C 12 FILE USER",
        )),
    }
}

/// `$5$salt$hash` or `$6$rounds=N$salt$hash`
fn sha_crypt(text: &str) -> Result<Hash, Refused> {
    let wrong = || malformed("SHA-crypt");
    let mut fields = text.split('$').skip(1);
    let length = if fields.next() == Some("5") { 43 } else { 86 };
    let mut salt = fields.next().ok_or_else(wrong)?;
    if let Some(rounds) = salt.strip_prefix("rounds=") {
        let rounds: u32 = rounds.parse().map_err(|_| wrong())?;
        if !(1000..=SHA_CRYPT_ROUNDS).contains(&rounds) {
            let help = "make it anew: openssl passwd -6";
            return Err((format!("{rounds} rounds: 1000 to {SHA_CRYPT_ROUNDS} are taken"), help));
        }
        salt = fields.next().ok_or_else(wrong)?;
    }
    let hash = fields.next().filter(|_| fields.next().is_none()).ok_or_else(wrong)?;
    let alphabet = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'));
    let whole = !salt.is_empty() && salt.len() <= 16 && alphabet(salt) && hash.len() == length && alphabet(hash);
    if whole { Ok(Hash::ShaCrypt(text.to_owned())) } else { Err(wrong()) }
}

fn argon2(text: &str) -> Result<Hash, Refused> {
    let wrong = || malformed("argon2");
    let hash = PasswordHash::new(text).map_err(|_| wrong())?;
    let params = Params::try_from(&hash).map_err(|_| wrong())?;
    if hash.salt.is_none() || hash.hash.is_none() || !matches!(hash.version, Some(16 | 19)) {
        return Err(wrong());
    }
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let bearable = memory <= ARGON2_MEMORY
        && u64::from(memory).saturating_mul(u64::from(passes)) <= ARGON2_WORK
        && lanes <= ARGON2_LANES;
    if !bearable {
        let message =
            format!("m={memory},t={passes},p={lanes}: at most 256 MiB, 1 GiB over all passes, 16 lanes are taken");
        return Err((message, "make it anew with m=65536,t=3,p=1"));
    }
    Ok(Hash::Argon2(Box::new(hash)))
}

#[cfg(test)]
pub(super) mod tests {
    use argon2::password_hash::CustomizedPasswordHasher;

    use super::*;

    // By crypt(3) of libxcrypt, all of "secret".
    pub(in super::super) const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    const SHA256: &str = "$5$rounds=1000$abcdefgh$XIppta5rT8zJUu4vAOKQXrwq9uY4Ijlz6VjyOmkx5i4";
    const SHA512: &str = "$6$rounds=1000$abcdefgh$nhYjN017qxiYztzyUpZtPnUQcnLy62KsunSLHNeLahp2EHPlAKmFFlrjEwSXGo2kgY5hR2.peKEg2VGUqIJJu1";
    /// Of 80 times "x".
    const LONG: &str = "$2y$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i";
    /// Of "é" in UTF-8.
    const UTF8: &str = "$2b$04$abcdefghijklmnopqrstuuhLs2FTTXh4aTzDmos5X8XImgHYf5TbO";

    fn argon2_of(algorithm: &str, password: &str) -> String {
        let params = Params::new(32, 1, 1, None).unwrap();
        let hash =
            Argon2::default().hash_password_customized(password.as_bytes(), b"somesalt", Some(algorithm), None, params);
        hash.unwrap().to_string()
    }

    fn parse(text: &str) -> Htpasswd {
        Htpasswd::parse(text).unwrap()
    }

    fn refused(hash: &str) -> String {
        let mut wrong = Htpasswd::parse(&format!("# names\n\nalice:{hash}\n")).err().unwrap_or_default();
        assert_eq!((wrong.len(), wrong.first().and_then(|wrong| wrong.line)), (1, Some(3)), "{hash}");
        wrong.remove(0).message
    }

    #[test]
    fn every_kind_of_hash() {
        let argons = ["argon2i", "argon2d", "argon2id"].map(|algorithm| argon2_of(algorithm, "secret"));
        let all = [BCRYPT, SHA256, SHA512].into_iter().chain(argons.iter().map(String::as_str));
        for hash in all {
            let file = parse(&format!("alice:{hash}:a remark\r\n"));
            assert!(file.knows("alice", "secret"), "{hash}");
            for wrong in ["", "Secret", "secret ", "secrets"] {
                assert!(!file.knows("alice", wrong), "{hash}");
            }
            assert!(!file.knows("bob", "secret") && !file.knows("", "secret"), "{hash}");
        }
        for hash in [BCRYPT.replace("$2y$", "$2a$"), BCRYPT.replace("$2y$", "$2b$")] {
            assert!(parse(&format!("a:{hash}")).knows("a", "secret"));
        }
        assert!(parse(&format!("ümlaut:{UTF8}")).knows("ümlaut", "é"));
    }

    #[test]
    fn bcrypt_is_not_taken_at_its_first_72_bytes() {
        let file = parse(&format!("alice:{LONG}"));
        assert!(file.knows("alice", &"x".repeat(72)));
        for length in [71, 73, 80] {
            assert!(!file.knows("alice", &"x".repeat(length)), "{length}");
        }
    }

    #[test]
    fn what_is_guessed_fast_is_refused() {
        for (hash, why) in [
            ("$apr1$salt$zb1SuGGaYAD8D3Dy1gT9x.", "MD5"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
            ("secret", "as it stands"),
            ("", "as it stands"),
            ("rl0uE0pUhVnzU", "crypt(3)"),
            ("$7$abc", "nothing else"),
            ("$2x$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", "$2x$"),
        ] {
            assert!(refused(hash).contains(why), "{hash}: {}", refused(hash));
        }
    }

    #[test]
    fn costs_that_would_stall_are_refused() {
        assert!(refused(&BCRYPT.replace("$04$", "$31$")).contains("a cost of 31"));
        assert!(refused(&BCRYPT.replace("$04$", "$03$")).contains("a cost of 3"));
        assert!(refused(&SHA512.replace("1000", "999999999")).contains("999999999 rounds"));
        assert!(refused(&SHA512.replace("1000", "999")).contains("999 rounds"));
        let argon = |params: &str| argon2_of("argon2id", "secret").replace("m=32,t=1,p=1", params);
        assert!(parse(&format!("a:{}", argon("m=65536,t=3,p=4"))).users().eq(["a"]));
        for params in ["m=4194304,t=1,p=1", "m=65536,t=100,p=1", "m=65536,t=1,p=200"] {
            assert!(refused(&argon(params)).contains("are taken"), "{params}");
        }
    }

    #[test]
    fn halves_of_hashes_are_refused() {
        let argon = argon2_of("argon2id", "secret");
        for (whole, kind) in [(BCRYPT, "bcrypt"), (SHA256, "SHA-crypt"), (SHA512, "SHA-crypt"), (&argon, "argon2")] {
            for length in [6, 8, 20, whole.len() - 1] {
                let (half, _) = whole.split_at(length);
                assert!(refused(half).contains(kind), "{half}: {}", refused(half));
            }
        }
        // Without a version it would be an older argon2.
        assert!(refused(&argon.replace("$v=19", "")).contains("argon2"));
        assert!(refused("$6$rounds=1000$salt").contains("SHA-crypt"));
    }

    #[test]
    fn lines_that_are_wrong() {
        let told = |text: &str| {
            let wrong = Htpasswd::parse(text).err().unwrap_or_default();
            wrong.into_iter().map(|wrong| (wrong.line, wrong.message)).collect::<Vec<_>>()
        };
        assert_eq!(told("# nobody\n"), [(None, "there is nobody in it".to_owned())]);
        assert_eq!(
            told(&format!("secret\n:{BCRYPT}\na:{BCRYPT}\na:{BCRYPT}")),
            [
                (Some(1), "this is not `name:hash`".to_owned()),
                (Some(2), "the name is empty or holds control characters".to_owned()),
                (Some(4), "line 3 has the same name".to_owned()),
            ]
        );
    }

    #[test]
    fn an_unknown_user_costs_what_a_known_one_does() {
        let file = parse(&format!("alice:{BCRYPT}\nbob:{SHA256}\n"));
        let stand_ins: std::collections::BTreeSet<bool> = (0..64)
            .map(|number| {
                let random = file.stand_in.hash_one(format!("user{number}").as_str()) >> 1;
                random % 2 == 0
            })
            .collect();
        assert_eq!(stand_ins.len(), 2, "each of them stands in for some");
    }
}
