//! Whom root runs a service as, and which folders are served to nobody.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// Numbers that no users are given by hand, for those who have no name: where systemd takes those of `DynamicUser=` from.
const FIRST: u32 = 61_184;
const COUNT: u32 = 4_336;

/// What people have in their homes, and services do not.
const LIVED_IN: [&str; 8] =
    [".ssh", ".aws", ".gnupg", ".kube", ".docker", ".config", ".bash_history", ".python_history"];

/// Whom root runs the service as: whoever owns its code, or for code of root's own a user of this folder alone, which has
/// a number and no name. `None`: only root can choose.
pub(super) fn user_for(directory: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    match std::fs::metadata(directory).map_or(0, |metadata| metadata.uid()) {
        0 => Some(own_number(directory, |number| {
            let user = User::from_uid(Uid::from_raw(number)).ok().flatten();
            user.is_some() || Group::from_gid(Gid::from_raw(number)).ok().flatten().is_some()
        })),
        owner => {
            let user = User::from_uid(Uid::from_raw(owner)).ok().flatten();
            Some(user.map_or(owner.to_string(), |user| user.name))
        }
    }
}

/// The same from one time to the next, so that what the service has written stays its own.
fn own_number(directory: &Path, is_taken: impl Fn(u32) -> bool) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, directory.as_os_str().as_encoded_bytes());
    let start = digest.as_ref().iter().take(3).fold(0_u32, |sum, byte| sum.wrapping_shl(8) | u32::from(*byte));
    let all = (0..COUNT).map(|step| FIRST.saturating_add(start.wrapping_add(step).checked_rem(COUNT).unwrap_or(0)));
    all.into_iter().find(|number| !is_taken(*number)).unwrap_or(FIRST).to_string()
}

/// Why a folder is not served, all of which every release would copy and hand to the service.
pub(super) fn too_wide(directory: &Path) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    too_wide_among(directory, &users)
}

fn too_wide_among(directory: &Path, users: &str) -> Option<String> {
    let common = ["/", "/root", "/home", "/tmp", "/var/tmp", "/etc", "/usr"];
    if common.iter().any(|path| directory == Path::new(path)) {
        return Some(format!("{} holds more than one service", directory.display()));
    }
    let home_of = |line: &str| -> Option<String> {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        let home = Path::new(fields.nth(2).filter(|home| home.starts_with('/'))?).canonicalize().ok()?;
        // Those who are there for a service often have their home where the service is.
        let is_person = number == 0 || (1_000..60_000).contains(&number);
        let is_lived_in = home.starts_with("/home") || LIVED_IN.iter().any(|name| home.join(name).exists());
        (is_person && is_lived_in && directory == home).then(|| name.to_owned())
    };
    let name = users.lines().find_map(home_of)?;
    Some(format!("{} is the home of {name}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_has_a_number_of_its_own() {
        let number = |path: &str| own_number(Path::new(path), |_| false).parse::<u32>().unwrap();
        let numbers = ["/srv/shop", "/srv/orders", "/srv/billing"].map(number);
        assert!(numbers.iter().all(|number| (61_184..65_520).contains(number)), "{numbers:?}");
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2], "{numbers:?}");
        assert_eq!(number("/srv/shop"), numbers[0]);
        let another = own_number(Path::new("/srv/shop"), |number| number == numbers[0]).parse::<u32>().unwrap();
        assert!((61_184..65_520).contains(&another) && another != numbers[0]);
    }

    #[test]
    fn homes_and_what_everybody_has_are_not_served() {
        let home = tempfile::tempdir().unwrap();
        let own = home.path().canonicalize().unwrap();
        let users =
            |number: u32| format!("root:x:0:0:root:/root:/bin/sh\nann:x:{number}:1000::{}:/bin/sh\n", own.display());
        for path in ["/", "/root", "/tmp", "/home"] {
            assert!(too_wide_among(Path::new(path), "").is_some(), "{path}");
        }
        assert_eq!(too_wide_among(&own, &users(1000)), None);
        std::fs::create_dir(own.join(".ssh")).unwrap();
        let told = too_wide_among(&own, &users(1000)).unwrap();
        assert_eq!(told, format!("{} is the home of ann", own.display()));
        assert_eq!(too_wide_among(&own.join("shop"), &users(1000)), None);
        // A service's own.
        assert_eq!(too_wide_among(&own, &users(998)), None);
    }
}
