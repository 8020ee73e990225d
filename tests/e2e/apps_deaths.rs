//! Deaths: of the gateway, in the middle of whatever it does, of what stands between it and its apps, and of both. Nothing
//! is left behind, and what served before serves again.

use rustix::process::Signal;

use crate::harness::apps::{Plan, kill, wsgi};
use crate::harness::{Site, eventually, eventually_every};

/// To look at all processes is a lot of work.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Starts a release in the background, waits until it has come to a certain point, and kills the gateway.
fn killed_in_mid_release(site: &mut Site, point: impl FnMut() -> Option<()>) {
    let config = site.gateway.config_path();
    let asked = std::thread::spawn(move || {
        crate::harness::gateway::passerelle(&["release", "--config", config.to_str().unwrap(), "shop"])
    });
    eventually("the release has come to the point", point);
    site.gateway.kill();
    let (status, output) = asked.join().unwrap();
    assert!(!status.success(), "{output}");
}

/// Of the gateway that died nothing runs any more, and of its releases only those are there that should be.
#[track_caller]
fn all_is_well(site: &Site, version: &str, releases: &[&str]) {
    assert_eq!(site.get("/version").text(), version);
    site.serves();
    assert_eq!(site.pids("shop").len(), 1);
    let releases = releases.iter().map(|release| (*release).to_owned()).collect();
    eventually("half of a release is gone", || (site.there("releases") == releases).then_some(()));
    eventually("only one socket is there", || (site.there("run").len() == 1).then_some(()));
    eventually_every(PAUSE, "only what serves runs", || {
        let (processes, keepers) = (site.processes(), site.keepers());
        // A keeper, gunicorn, and its worker.
        (keepers.len() == 1 && processes.len() == 3).then_some(())
    });
    site.write("shop/app.py", &wsgi("next"));
    site.write("shop/hook.py", "");
    site.release();
    assert_eq!(site.get("/version").text(), "next");
}

const LINES: &str = "workers = 1\nserver = \"gunicorn\"";

#[test]
fn killed_while_the_entry_is_looked_at() {
    let mut site = Plan::new(&wsgi("one"), LINES).start();
    let flag = site.path().join("flag");
    let sleeps = format!("open({:?}, 'w').close()\nimport time\ntime.sleep(600)\n", flag.to_str().unwrap());
    site.write("shop/app.py", &(sleeps + &wsgi("two")));
    killed_in_mid_release(&mut site, || flag.exists().then_some(()));
    site.gateway.start_again();
    site.serves();
    all_is_well(&site, "one", &["1"]);
}

#[test]
fn killed_during_a_hook() {
    let mut site =
        Plan::new(&wsgi("one"), LINES).lines("pre_release = [\"python\", \"hook.py\"]").file("hook.py", "").start();
    let flag = site.path().join("flag");
    let flag_text = flag.to_str().unwrap();
    // It forks, twice, and hides as well as it can.
    site.write("shop/hook.py", &format!(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        open({flag_text:?}, 'w').close()\n        \
         time.sleep(600)\n    os._exit(0)\ntime.sleep(600)\n"
    ));
    site.write("shop/app.py", &wsgi("two"));
    killed_in_mid_release(&mut site, || flag.exists().then_some(()));
    site.gateway.start_again();
    site.serves();
    all_is_well(&site, "one", &["1"]);
}

/// What goes to another group, with its child, and hears no SIGTERM ends all the same.
#[test]
fn killed_while_a_hook_hides_from_its_keeper() {
    let mut site =
        Plan::new(&wsgi("one"), LINES).lines("pre_release = [\"python\", \"hook.py\"]").file("hook.py", "").start();
    let flag = site.path().join("flag");
    site.write("shop/hook.py", &format!(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nchild = os.fork()\nif child == 0:\n    \
         os.setpgid(0, 0)\n    time.sleep(600)\n    os._exit(0)\nwhile os.getpgid(child) != child:\n    time.sleep(0.01)\n\
         os.setpgid(0, child)\nopen({:?}, 'w').close()\ntime.sleep(600)\n", flag.to_str().unwrap()
    ));
    killed_in_mid_release(&mut site, || flag.exists().then_some(()));
    // Without a gateway that would sweep.
    eventually_every(PAUSE, "nothing runs any more", || {
        (site.processes().is_empty() && site.keepers().is_empty()).then_some(())
    });
}

/// Whoever sees errors does not wait for an import or a hook that hangs, a worker that is slow, or the end of a watch.
#[test]
fn a_rollback_calls_off_what_is_under_way() {
    let site = Plan::new(&wsgi("one"), LINES)
        .lines("watch = { period = \"600s\", requests = 1000000 }\npre_release = [\"python\", \"hook.py\"]")
        .file("hook.py", "")
        .start();
    let flag = site.path().join("flag");
    let flagged = format!("open({:?}, 'w').close()\n", flag.to_str().unwrap());
    let port = site.port();
    let is_two = || (crate::harness::http::get(port, "/version").text() == "two").then_some(());
    let under_way = |point: &mut dyn FnMut() -> Option<()>| {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| site.command("release", &["shop"]));
            eventually("the release has come to the point", point);
            let (rolled_back, said) = site.command("rollback", &["shop"]);
            assert!(rolled_back.success() && said.contains("called off: release 1 of shop serves"), "{said}");
            let (status, said) = asked.join().unwrap();
            assert!(!status.success() && said.contains("a rollback was asked for"), "{said}");
        });
        let _ = std::fs::remove_file(&flag);
        assert_eq!((site.get("/version").text().as_str(), site.serving()), ("one", 1));
        eventually("nothing is left of it", || (site.there("releases") == ["1".to_owned()].into()).then_some(()));
        eventually("only one socket is there", || (site.there("run").len() == 1).then_some(()));
        eventually_every(PAUSE, "only what serves runs", || (site.processes().len() == 3).then_some(()));
    };
    site.write("shop/app.py", &wsgi("two"));
    under_way(&mut || is_two());
    let waits = format!("{flagged}import time\ntime.sleep(600)\n");
    site.write("shop/app.py", &waits);
    under_way(&mut || flag.exists().then_some(()));
    let waits = waits.replace('\n', "\n    ");
    let in_worker = "if not os.environ['XDG_RUNTIME_DIR'].endswith('-import'):";
    site.write("shop/app.py", &(wsgi("two") + &format!("\n{in_worker}\n    {waits}\n")));
    under_way(&mut || flag.exists().then_some(()));
    site.write("shop/app.py", &wsgi("two"));
    site.write("shop/hook.py", &(flagged + "import time\ntime.sleep(600)\n"));
    under_way(&mut || flag.exists().then_some(()));
    // Neither number is given again, and there is nothing to go back to.
    let (status, said) = site.command("rollback", &["shop"]);
    assert!(!status.success() && said.contains("no release before this one"), "{said}");
    site.write("shop/hook.py", "import sys\nsys.exit(3)\n");
    assert!(site.no_release().contains("release 6"));
}

/// Nobody knows yet whether it is any good: what served before it serves again.
#[test]
fn killed_while_a_release_is_watched() {
    let mut site =
        Plan::new(&wsgi("one"), LINES).lines("watch = { period = \"8s\", requests = 1000, errors = \"1%\" }").start();
    site.write("shop/app.py", &wsgi("two"));
    let port = site.port();
    let is_two = move || (crate::harness::http::get(port, "/version").text() == "two").then_some(());
    killed_in_mid_release(&mut site, is_two);
    site.gateway.start_again();
    site.serves();
    all_is_well(&site, "one", &["1"]);
}

/// The very first release: there is nothing to go back to, so it is made again.
#[test]
fn killed_before_there_is_any_release() {
    let plan = Plan::new(&wsgi("one"), LINES).lines("pre_release = [\"python\", \"hook.py\"]");
    let mut site = plan.file("hook.py", "import time\nopen('began', 'w').close()\ntime.sleep(600)\n").begin();
    let began = site.place().join("releases/1/code/began");
    eventually("the hook runs", || began.exists().then_some(()));
    site.gateway.kill();
    site.write("shop/hook.py", "");
    site.gateway.start_again();
    site.serves();
    assert_eq!(site.get("/version").text(), "one");
    site.serves();
    eventually("half of a release is gone", || (site.there("releases").len() == 1).then_some(()));
}

/// Whatever the server: some have processes of their own that know nothing of the gateway.
#[test]
fn keepers_that_are_killed_take_what_they_keep_with_them() {
    for server in ["gunicorn", "uwsgi", "granian"] {
        let site = Plan::new(&wsgi("one"), &format!("workers = 1\nserver = \"{server}\"")).start();
        let before = site.processes();
        kill(*site.keepers().first().unwrap());
        eventually_every(PAUSE, "another worker serves", || {
            let now = site.processes();
            let all_new = now.iter().all(|(pid, _)| before.iter().all(|(old, _)| old != pid));
            (all_new && now.len() == before.len()).then_some(())
        });
        assert_eq!(site.get("/version").text(), "one");
        site.serves();
        assert_eq!(site.there("run").len(), 1);
    }
}

/// Nobody is left who could end anything, but for the kernel and the gateway that comes next.
#[test]
fn gateway_and_keepers_killed_at_once() {
    for server in ["gunicorn", "uwsgi", "granian"] {
        let mut site = Plan::new(&wsgi("one"), &format!("workers = 2\nserver = \"{server}\"")).start();
        let keepers = site.keepers();
        assert_eq!(keepers.len(), 2);
        let before = site.processes();
        site.gateway.signal(Signal::STOP);
        keepers.into_iter().for_each(kill);
        site.gateway.kill();
        site.gateway.start_again();
        site.serves();
        assert_eq!(site.get("/version").text(), "one");
        site.serves();
        let now = site.processes();
        for (pid, command) in &before {
            assert!(now.iter().all(|(other, _)| other != pid), "left behind: {command}");
        }
        assert_eq!(now.len(), before.len());
        assert_eq!(site.there("run").len(), 2);
    }
}

/// Requests that run are finished; then everything ends, and so does the gateway.
#[test]
fn a_gateway_that_is_told_to_end_ends_its_apps() {
    let site = Plan::new(&wsgi("one"), "workers = 2\nserver = \"gunicorn\"").start();
    let flag = site.path().join("flag");
    let (port, target) = (site.port(), format!("/held?{}", flag.display()));
    let held = std::thread::spawn(move || crate::harness::http::get(port, &target));
    eventually("the request runs", || flag.with_extension("began").exists().then_some(()));
    site.gateway.signal(Signal::TERM);
    eventually("nobody is let in", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
    assert!(!site.processes().is_empty());
    std::fs::write(&flag, "").unwrap();
    let answer = held.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    eventually_every(PAUSE, "everything ends", || site.processes().is_empty().then_some(()));
    eventually("its sockets are removed", || site.there("run").is_empty().then_some(()));
    let output = site.gateway.output();
    // They were asked to, and had the time for it.
    assert_eq!(output.matches("Handling signal: term").count(), 2, "{output}");
}

/// A second gateway in the same place does not touch what the first one runs.
#[test]
fn an_app_is_run_by_one_gateway_at_a_time() {
    let site = Plan::new(&wsgi("one"), "workers = 1").start();
    let pids = site.pids("shop");
    let text = std::fs::read_to_string(site.gateway.config_path()).unwrap();
    let other =
        text.replace(&site.port().to_string(), "@http@").replace(&site.gateway.port("admin").to_string(), "@admin@");
    let other = crate::harness::Gateway::start(&other);
    other.log_line("it is told why", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("another gateway runs this app"))
    });
    assert_eq!(site.pids("shop"), pids);
    assert_eq!(other.get("/").cause(), "app_not_running");
}

/// A release that was made is made for good.
#[test]
fn killed_after_a_release() {
    let mut site = Plan::new(&wsgi("one"), LINES).start();
    site.write("shop/app.py", &wsgi("two"));
    site.release();
    site.gateway.kill();
    // New code is for the next release, not for the next start.
    site.write("shop/app.py", &wsgi("three"));
    site.gateway.start_again();
    site.serves();
    assert_eq!(site.get("/version").text(), "two");
    let (status, output) = site.command("rollback", &["shop"]);
    assert!(status.success(), "{output}");
    assert_eq!(site.get("/version").text(), "one");
}
