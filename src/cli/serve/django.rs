//! A folder with Django's `manage.py`: which settings it names, and what these say is to be served.

use std::path::{Path, PathBuf};

use super::plain;
use super::sources::{self, quoted_after};
use super::target::{NoTarget, Target, folder_name};

/// What the project is told by `manage.py`, which is read and not run.
pub(super) fn find(folder: &Path) -> Result<Target, NoTarget> {
    let manage = folder.join("manage.py");
    if let Some(closed) = sources::closed(&manage) {
        return Err(closed);
    }
    let text = sources::read(&manage).unwrap_or_default();
    let Some(settings) = quoted_after(&text, "DJANGO_SETTINGS_MODULE") else {
        let why = format!("{} names no DJANGO_SETTINGS_MODULE", manage.display());
        return Err(NoTarget::new(why, "name what is to be served: passerelle serve PROJECT.wsgi:application"));
    };
    let settings_text = settings_text(folder, settings);
    let setting = |name: &str| quoted_after(&settings_text, name).and_then(as_entry);
    let project = settings.split('.').next().unwrap_or_default();
    let module = |name: &str| {
        let file = folder.join(project).join(format!("{name}.py"));
        file.is_file().then(|| format!("{project}.{name}:application"))
    };
    // A project gets WSGI_APPLICATION when it is made; ASGI_APPLICATION somebody wrote.
    let entry = setting("ASGI_APPLICATION").or_else(|| setting("WSGI_APPLICATION"));
    let entry = entry.or_else(|| module("asgi")).or_else(|| module("wsgi"));
    let entry = entry.and_then(|entry| entry.parse().ok()).ok_or_else(|| {
        let why = format!("{project} has neither wsgi.py nor asgi.py, and its settings name neither");
        NoTarget::new(why, "name what is to be served: passerelle serve PROJECT.wsgi:application")
    })?;
    let name = match project {
        // Names that say nothing.
        "config" | "project" | "settings" | "core" | "app" => folder_name(folder),
        project => project.into(),
    };
    let urls = quoted_after(&settings_text, "ROOT_URLCONF").map(|module| file_of(folder, module));
    let but_root = urls.as_ref().and_then(|urls| sources::django_path_but_root(urls));
    let health = urls.and_then(|urls| sources::django_health_path(&urls));
    let (directory, within) = (folder.to_owned(), PathBuf::new());
    Ok(Target { directory, within, entry, name: plain(&name), health, but_root })
}

/// `project.wsgi.application` is `project.wsgi:application` to servers.
fn as_entry(dotted: &str) -> Option<String> {
    dotted.rsplit_once('.').map(|(module, attribute)| format!("{module}:{attribute}"))
}

fn file_of(folder: &Path, module: &str) -> PathBuf {
    folder.join(module.replace('.', "/")).with_extension("py")
}

/// The settings, and where they are one of several beneath a package, what they begin with.
fn settings_text(folder: &Path, module: &str) -> String {
    let file = file_of(folder, module);
    let package = file.with_extension("");
    let beside = file.parent().filter(|parent| parent.join("__init__.py").is_file() && module.matches('.').count() > 1);
    let files = [
        Some(file.clone()),
        Some(package.join("__init__.py")),
        Some(package.join("base.py")),
        beside.map(|parent| parent.join("base.py")),
    ];
    files.into_iter().flatten().filter_map(|file| sources::read(&file)).collect::<Vec<_>>().join("\n")
}
