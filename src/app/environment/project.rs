//! `pyproject.toml` and `uv.lock`: what they ask to be installed, and of which Python.

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::digest::{Digester, Files};
use super::requirements::name_of;
use super::version::Demand;
use crate::app::failure::Failure;

/// What is needed of a `pyproject.toml`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) dependencies: Vec<String>,
    pub(super) demand: Option<Demand>,
}

impl Project {
    /// The names of its dependencies, in their normal form.
    pub(super) fn named(&self) -> BTreeSet<String> {
        self.dependencies.iter().filter_map(|dependency| name_of(dependency)).collect()
    }
}

/// Reads the `[project]` of a `pyproject.toml`.
///
/// # Errors
/// It has none, leaves its dependencies to a build, or is not TOML.
pub(super) fn project(path: &Path) -> Result<Project, Failure> {
    let text = read(path)?;
    let shown = path.display();
    let table = DeTable::parse(&text).map_err(|error| not_toml(path, &error))?;
    let table = table.get_ref();
    let Some(project) = sub_table(table, "project") else {
        let poetry = sub_table(table, "tool").is_some_and(|tool| tool.contains_key("poetry"));
        let why = if poetry {
            format!(
                "{shown} has its dependencies in [tool.poetry] alone: `poetry export -f requirements.txt -o \
                 requirements.txt` writes what can be installed, or move them to [project]"
            )
        } else {
            format!(
                "{shown} has no [project] that could say what to install: write its `dependencies`, or name a \
                     requirements file with `requirements`"
            )
        };
        return Err(Failure::new(why));
    };
    let dynamic = array(project, "dynamic").into_iter().flatten();
    if dynamic.filter_map(text_of).any(|name| name == "dependencies") {
        return Err(Failure::new(format!(
            "{shown} leaves its `dependencies` to the build (`dynamic`): write them there, or name a requirements file \
             with `requirements`"
        )));
    }
    let mut dependencies = Vec::new();
    for dependency in array(project, "dependencies").into_iter().flatten() {
        match text_of(dependency) {
            Some(text) if !text.contains('\0') && !text.trim_start().starts_with('-') => {
                dependencies.push(text.to_owned());
            }
            Some(_) | None => {
                return Err(Failure::new(format!("`dependencies` of {shown} holds what is no requirement")));
            }
        }
    }
    Ok(Project { dependencies, demand: demand(project, path)? })
}

/// Where a `pyproject.toml` has what is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// In itself, or it is to be told what is wrong with it.
    Dependencies,
    /// In a requirements file that the build reads.
    ElsewhereIn(String),
    /// Nowhere: `[project]` is missing, or names nothing.
    Nothing,
}

/// Looks for it, without judging what is there.
pub(super) fn said(path: &Path) -> Said {
    let Ok(text) = read(path) else { return Said::Dependencies };
    let Ok(table) = DeTable::parse(&text) else { return Said::Dependencies };
    let table = table.get_ref();
    let Some(project) = sub_table(table, "project") else { return Said::Nothing };
    let mut dynamic = array(project, "dynamic").into_iter().flatten().filter_map(text_of);
    if dynamic.any(|name| name == "dependencies") {
        return read_by_the_build(table).map_or(Said::Nothing, Said::ElsewhereIn);
    }
    let is_empty = array(project, "dependencies").is_some_and(<[_]>::is_empty);
    if is_empty || !project.contains_key("dependencies") { Said::Nothing } else { Said::Dependencies }
}

/// `dependencies = { file = "requirements.txt" }` of setuptools, where it is one file.
fn read_by_the_build(table: &DeTable<'_>) -> Option<String> {
    let setuptools = sub_table(sub_table(table, "tool")?, "setuptools")?;
    let dependencies = sub_table(sub_table(setuptools, "dynamic")?, "dependencies")?;
    let one = match array(dependencies, "file") {
        Some([one]) => one,
        Some(_) => return None,
        None => dependencies.get("file")?,
    };
    text_of(one).map(str::to_owned)
}

/// What a `pyproject.toml` demands of the Python, whatever else is in it, should it be there at all.
pub(super) fn demand_alone(path: &Path) -> Option<Demand> {
    let text = read(path).ok()?;
    let table = DeTable::parse(&text).ok()?;
    demand(sub_table(table.get_ref(), "project")?, path).ok()?
}

/// What a `uv.lock` demands of the Python. What it refers to on this machine goes into `digester` too.
///
/// # Errors
/// It is not TOML, or what it refers to cannot be read.
pub(super) fn lock(path: &Path, digester: &mut Digester) -> Result<Option<Demand>, Failure> {
    let text = read(path)?;
    digester.bytes("uv.lock", text.as_bytes());
    let table = DeTable::parse(&text).map_err(|error| not_toml(path, &error))?;
    let table = table.get_ref();
    let beside = path.parent().unwrap_or(Path::new("/"));
    for package in array(table, "package").into_iter().flatten() {
        let DeValue::Table(package) = package.get_ref() else { continue };
        let Some(source) = sub_table(package, "source") else { continue };
        let local = ["directory", "editable", "path"].iter().find_map(|kind| source.get(*kind));
        // `.` is the project itself, which is not installed: it is the code.
        if let Some(local) = local.and_then(text_of).filter(|local| *local != ".") {
            digester.tree("package", &beside.join(local), Files::Contents)?;
        }
    }
    demand(table, path)
}

fn demand(table: &DeTable<'_>, path: &Path) -> Result<Option<Demand>, Failure> {
    let Some(text) = table.get("requires-python").and_then(text_of) else { return Ok(None) };
    match Demand::parse(text) {
        Some(demand) => Ok(Some(demand)),
        None => Err(Failure::new(format!("`requires-python` of {} is no version such as \">=3.10\"", path.display()))),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = super::digest::read(path)
        .map_err(|reason| Failure::new(format!("{} cannot be read: {reason}", path.display())))?;
    String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))
}

/// Without the line itself: whoever wrote the file can look there.
fn not_toml(path: &Path, error: &toml::de::Error) -> Failure {
    Failure::new(format!("{} is not TOML: {}", path.display(), error.message()))
}

fn sub_table<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t DeTable<'i>> {
    match table.get(key)?.get_ref() {
        DeValue::Table(found) => Some(found),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => None,
    }
}

fn array<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t [toml::Spanned<DeValue<'i>>]> {
    match table.get(key)?.get_ref() {
        DeValue::Array(found) => Some(found),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => None,
    }
}

fn text_of<'t>(value: &'t toml::Spanned<DeValue<'_>>) -> Option<&'t str> {
    value.get_ref().as_str()
}
