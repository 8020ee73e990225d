//! From text to [`settings::Settings`].
//!
//! The file is parsed to a table that survives syntax errors (`toml`), its secrets are masked (`mask`), and a
//! collecting reader (`reader`) goes through it section by section (`section`), so that every problem is found at
//! once, each with its place. What holds between sections comes last (`rules`). Nothing here opens what the file
//! names, except for the values that `${file:…}` and `${credential:…}` draw.

mod admission;
mod env_file;
pub mod hints;
pub mod keys_file;
mod lines;
mod mask;
mod node;
mod outside;
mod paths;
pub mod problem;
mod reader;
pub mod render;
mod routes;
mod rules;
mod section;
pub mod settings;
pub mod source;
mod suggest;
mod syntax;
mod value;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

pub use self::mask::KEY_PREFIX;
pub use self::outside::Outside;
pub(crate) use self::outside::read_bounded;
use self::problem::{Problem, any_error};
use self::reader::{Context, Table};
pub use self::section::{CONTROL_SOCKET, state_directory, wrong_key_name, wrong_scope};
use self::settings::{
    At, AuthKind, CertificateFiles, ClientAuthSettings, ClientProof, JwtKeys, OpenApiSource, Settings,
};
use self::source::{SourceFile, Span};
pub use self::value::fetch_url::{NotFetched, parse as parse_fetch_url};

/// No configuration that people write is larger.
const MAX_CONFIGURATION: u64 = 4 * 1024 * 1024;

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The file, with its secrets masked.
    pub file: Arc<SourceFile>,
    /// What could be read. Values that were wrong have their defaults here and whole sections may be missing.
    draft: Option<Settings>,
    pub problems: Vec<Problem>,
    /// The file itself and what values were drawn from, whether or not it could be read.
    drawn_from: BTreeSet<PathBuf>,
}

impl Loaded {
    /// The settings, if nothing is wrong with them.
    pub fn settings(&self) -> Option<&Settings> {
        self.draft.as_ref().filter(|_| !any_error(&self.problems))
    }

    /// Every file that the configuration is made of: itself, what values were drawn from, certificates and keys. When
    /// one changes, the configuration has changed. Absolute paths; some may not exist.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = self.drawn_from.clone();
        let settings = self.draft.iter();
        let listeners = settings.clone().flat_map(|settings| settings.listeners.values());
        let tls = listeners.filter_map(|listener| listener.tls.as_ref());
        for ClientAuthSettings { ca, crl } in tls.clone().filter_map(|tls| tls.client_auth.as_ref()) {
            files.extend([ca].into_iter().chain(crl).map(|file| file.value.clone()));
        }
        let served = tls.flat_map(|tls| &tls.certificates);
        let upstreams = settings.flat_map(|settings| settings.upstreams.values()).map(|upstream| &upstream.tls);
        files.extend(settings_files(self.draft.as_ref()));
        files.extend(upstreams.clone().filter_map(|tls| tls.ca.as_ref()).map(|ca| ca.value.clone()));
        for CertificateFiles { chain, key } in served.chain(upstreams.filter_map(|tls| tls.client.as_ref())) {
            files.extend([chain.value.clone(), key.value.clone()]);
        }
        files.into_iter().collect()
    }

    /// Goes on to `build`, which adds its own problems. It also sees settings that have errors already, so that all
    /// is reported at once; what it makes of them is thrown away.
    pub fn build<T>(self, build: impl FnOnce(Settings, &mut Vec<Problem>) -> Option<T>) -> (Option<T>, Vec<Problem>) {
        let mut problems = self.problems;
        let built = self.draft.and_then(|settings| build(settings, &mut problems));
        (built.filter(|_| !any_error(&problems)), problems)
    }
}

/// The files of identity, limits and validation.
fn settings_files(settings: Option<&Settings>) -> Vec<PathBuf> {
    let mut files: Vec<&At<PathBuf>> = Vec::new();
    for auth in settings.iter().flat_map(|settings| settings.auths.values()) {
        match &auth.kind {
            AuthKind::Jwt(jwt) => {
                files.extend(&jwt.ca);
                match &jwt.keys {
                    JwtKeys::File(file) => files.push(file),
                    JwtKeys::Discovery(_) | JwtKeys::Url(_) | JwtKeys::Secret(_) => {}
                }
            }
            AuthKind::Introspection(introspection) => {
                files.extend(&introspection.ca);
                match &introspection.client {
                    ClientProof::PrivateKey { key, .. } => files.push(key),
                    ClientProof::Secret(_) => {}
                }
            }
            AuthKind::ApiKey(keys) => files.extend(&keys.keys_file),
            AuthKind::ClientCertificate(_) => {}
            AuthKind::Basic(basic) => files.push(&basic.htpasswd),
        }
    }
    files.extend(settings.iter().flat_map(|settings| settings.stores.values()).filter_map(|store| store.ca.as_ref()));
    let routes = settings.iter().flat_map(|settings| settings.routes.values());
    for validate in routes.filter_map(|route| route.validate.as_ref()) {
        files.extend(validate.body_schema.iter().chain(&validate.schemas));
        match validate.openapi.as_ref().map(|openapi| &openapi.source) {
            Some(OpenApiSource::File(file)) => files.push(file),
            Some(OpenApiSource::Upstream(_)) | None => {}
        }
    }
    files.into_iter().map(|file| file.value.clone()).collect()
}

/// Reads the file at `path`, with the environment of this process.
pub fn load(path: &Path) -> Loaded {
    let name = path.to_string_lossy();
    // Without a current directory relative paths stay relative, and the system says what is wrong with each.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let text = outside::read_bounded(path, MAX_CONFIGURATION)
        .map_err(|reason| {
            let help = "`--config FILE` says where it is; `passerelle --help` shows one to start from";
            (format!("cannot read the configuration: {reason}"), Some(help))
        })
        .and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let place = error.utf8_error().valid_up_to();
                (format!("the configuration is not valid UTF-8: see byte {place}"), None)
            })
        });
    let mut loaded = match text {
        Ok(text) => load_text(&name, &text, &base, &Outside::new(&|name| std::env::var_os(name))),
        Err((message, help)) => {
            let file = Arc::new(SourceFile::new(name, ""));
            let mut problem = Problem::error(&Span::whole_file(&file), message);
            if let Some(help) = help {
                problem = problem.help(help);
            }
            Loaded { file, draft: None, problems: vec![problem], drawn_from: BTreeSet::new() }
        }
    };
    loaded.drawn_from.insert(absolute);
    loaded
}

/// Reads `text` under the name `name`; relative paths are relative to `base`, which is absolute.
pub fn load_text(name: &str, text: &str, base: &Path, outside: &Outside<'_>) -> Loaded {
    let (table, errors) = DeTable::parse_recoverable(text);
    let incomplete = !errors.is_empty();
    let file = Arc::new(SourceFile::new(name, mask::masked(text, table.get_ref(), incomplete)));
    let cx = Context {
        file: Arc::clone(&file),
        base,
        outside,
        incomplete,
        problems: RefCell::default(),
        files: RefCell::default(),
    };
    let mut draft = section::read(Table::root(&cx, table.get_ref()));
    rules::check(&cx, &draft);
    // Names that dangle have been reported; building need not meet them.
    let Settings { routes, upstreams, admin, .. } = &mut draft.settings;
    routes.retain(|_, route| route.action.upstream().is_none_or(|name| upstreams.contains_key(&name.value)));
    admin.ready_requires.retain(|name| upstreams.contains_key(&name.value));
    let mut problems = syntax::with_syntax_errors(&cx, &errors);
    if !draft.complete && !any_error(&problems) {
        // Whatever cannot be read says why; this holds should one fall silent.
        problems.push(Problem::error(&Span::whole_file(&file), "the configuration is incomplete"));
    }
    problems.dedup();
    Loaded { draft: (!incomplete).then_some(draft.settings), file, problems, drawn_from: cx.files.into_inner() }
}
