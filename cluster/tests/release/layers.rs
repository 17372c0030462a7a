//! The code map of ARCHITECTURE.md, held against the code: it names every crate with the crates
//! that it uses, and every module; inside a crate no modules import each other in a circle, and a
//! module imports only those named above it.
//!
//! Modules that are compiled for tests alone are left out, as are imports in them, and what the
//! root of a folder imports from its own children.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Macro, UseTree};

/// The most modules in one folder of a crate's code, without tests.
const ENTRIES_MAX: usize = 12;

/// A module as a path from the root of its crate, which is the empty path.
type Module = Vec<String>;
/// Each module's imports of its own crate.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates, by their folders.
fn crates() -> Vec<String> {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = workspace.parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folder = |member: &toml::Value| member.as_str().unwrap().to_owned();
    members.iter().map(folder).collect()
}

/// The folders of the crates' code.
fn sources() -> Vec<String> {
    crates().iter().map(|it| format!("{it}/src")).collect()
}

/// The crates of this workspace that a crate is built from, by their folders.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let read = |file: PathBuf| -> toml::Table {
        let text = std::fs::read_to_string(file).unwrap();
        text.parse().unwrap()
    };
    let workspace = read(root().join("Cargo.toml"));
    let paths = &workspace["workspace"]["dependencies"];
    let manifest = read(root().join(folder).join("Cargo.toml"));
    let used = manifest.get("dependencies").and_then(|it| it.as_table());
    let names = used.into_iter().flat_map(toml::Table::keys);
    let path = |name: &String| paths.get(name)?.get("path")?.as_str().map(str::to_owned);
    names.filter_map(path).collect()
}

/// The modules of a crate, with their files.
fn modules(folder: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let inside = path.strip_prefix(folder).unwrap().with_extension("");
                let mut module: Module = inside
                    .iter()
                    .map(|part| part.to_str().unwrap().to_owned())
                    .collect();
                if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
                    module.pop();
                }
                found.insert(module, path);
            }
        }
    }
    found
}

/// Whether an item is compiled for tests alone.
fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|it| it.is_ident("test"))
    })
}

/// Collects the paths that a file names, and its modules that are compiled for tests alone.
#[derive(Default)]
struct Paths {
    named: Vec<Vec<String>>,
    of_tests: Vec<String>,
}

impl Paths {
    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.named.push(with(&name.ident)),
            UseTree::Rename(name) => self.named.push(with(&name.ident)),
            UseTree::Glob(_) => self.named.push(before.to_vec()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            Item::Mod(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Struct(it) => &it.attrs,
            Item::Const(it) => &it.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_of_tests(attributes) {
            visit::visit_item(self, item);
        } else if let Item::Mod(module) = item {
            self.of_tests.push(module.ident.to_string());
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    /// `pub(super)` and `pub(in …)` import nothing.
    fn visit_visibility(&mut self, _visibility: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.named.push(names.collect());
        visit::visit_path(self, path);
    }

    /// The arguments of a macro are tokens; the paths in them are found by their colons.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let tokens = call.tokens.to_string().replace(" :: ", "::");
        let words = tokens.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let paths = words.filter(|word| word.contains("::"));
        self.named
            .extend(paths.map(|path| path.split("::").map(str::to_owned).collect()));
    }
}

/// The module of the crate that a path leads into, as far as files tell; none for other crates.
fn target(from: &Module, path: &[String], all: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut names = path.iter();
    let first = names.next()?;
    let mut at = match first.as_str() {
        "crate" => Module::new(),
        "self" => from.clone(),
        "super" => from.split_last()?.1.to_vec(),
        name => {
            let child = [from.as_slice(), &[name.to_owned()]].concat();
            all.contains_key(&child).then_some(child)?
        }
    };
    for name in names {
        if name == "super" {
            at.pop();
            continue;
        }
        let child = [at.as_slice(), std::slice::from_ref(name)].concat();
        if !all.contains_key(&child) {
            break;
        }
        at = child;
    }
    Some(at)
}

fn imports(folder: &Path) -> Imports {
    let all = modules(folder);
    let mut found = Imports::new();
    let mut of_tests: Vec<Module> = Vec::new();
    for (module, file) in &all {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut paths = Paths::default();
        paths.visit_file(&parsed);
        let leads = paths
            .named
            .iter()
            .filter_map(|path| target(module, path, &all))
            // A folder's root may call its children, which use what it owns.
            .filter(|to| !to.starts_with(module));
        found.insert(module.clone(), leads.collect());
        let children = paths.of_tests.into_iter();
        of_tests.extend(children.map(|child| [module.as_slice(), &[child]].concat()));
    }
    found.retain(|module, _| !of_tests.iter().any(|it| module.starts_with(it)));
    found
}

/// A shortest way from a module back to itself, if there is one.
fn circle(from: &Module, imports: &Imports) -> Option<Vec<Module>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in imports.get(way.last()?).into_iter().flatten() {
                if next == from {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([way.as_slice(), std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

fn name(module: &Module) -> String {
    match module.is_empty() {
        true => "the root".to_owned(),
        false => module.join("::"),
    }
}

#[test]
fn modules_import_each_other_in_no_circle() {
    let mut found = Vec::new();
    for folder in sources() {
        let imports = imports(&root().join(&folder));
        assert!(!imports.is_empty(), "{folder} has no modules");
        let circles = imports.keys().filter_map(|it| circle(it, &imports));
        let shortest = circles.min_by_key(Vec::len);
        if let Some(circle) = shortest {
            let names: Vec<String> = circle.iter().map(name).collect();
            found.push(format!("{folder}: {} -> {}", names.join(" -> "), names[0]));
        }
    }
    assert!(
        found.is_empty(),
        "circles of imports:\n{}",
        found.join("\n")
    );
}

/// The rows of the code map, by folder: the modules of each row, in the order of the rows.
fn code_map() -> BTreeMap<String, Vec<Vec<String>>> {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let quoted = |text: &str| -> Vec<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let mut tables = BTreeMap::new();
    let mut folder = None;
    for line in map.lines() {
        if line.starts_with("## ") || line.starts_with("### ") {
            let heading = quoted(line).into_iter().next();
            folder = heading.map(|name| match name.contains("/src") {
                true => name,
                false => name + "/src",
            });
        } else if let (Some(folder), Some(row)) = (&folder, line.strip_prefix("| `")) {
            let cell = format!("`{}", row.split('|').next().unwrap_or_default());
            let rows: &mut Vec<Vec<String>> = tables.entry(folder.clone()).or_default();
            rows.push(quoted(&cell));
        }
    }
    tables
}

#[test]
fn the_code_map_names_the_modules_that_are_there() {
    let mut found = Vec::new();
    let map = code_map();
    for folder in sources() {
        let modules = modules(&root().join(&folder));
        if !map.contains_key(&folder) && modules.keys().any(|module| module.len() == 1) {
            found.push(format!("{folder} has no table"));
        }
    }
    for (folder, rows) in map {
        let path = root().join(&folder);
        if !path.is_dir() || !sources().iter().any(|it| folder.starts_with(it)) {
            continue;
        }
        let modules = modules(&path).into_keys();
        let there: BTreeSet<String> = modules
            .filter_map(|module| module.into_iter().next())
            .filter(|name| !["bin", "tests"].contains(&name.as_str()))
            .collect();
        let named: BTreeSet<String> = rows.into_iter().flatten().collect();
        let lacks = there.difference(&named);
        found.extend(lacks.map(|name| format!("{folder}: `{name}` is in no row")));
        let gone = named.difference(&there).filter(|it| *it != "main");
        found.extend(gone.map(|name| format!("{folder}: `{name}` is no module")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The crates of the code map, in its order, with those that they use.
fn crate_map() -> Vec<(String, BTreeSet<String>)> {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = map
        .split("\n## Crates\n")
        .nth(1)
        .expect("a table of crates");
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once('`').unwrap();
        let uses = rest.rsplit('|').nth(1).unwrap();
        let uses = uses.split('`').skip(1).step_by(2).map(str::to_owned);
        (name.to_owned(), uses.collect())
    })
    .collect()
}

#[test]
fn crates_use_what_the_code_map_says_and_only_crates_above() {
    let map = crate_map();
    let named: BTreeSet<String> = map.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(named, crates().into_iter().collect(), "the crates");
    let mut above = BTreeSet::new();
    for (name, uses) in map {
        assert_eq!(uses, dependencies(&name), "what `{name}` uses");
        let below: Vec<_> = uses.difference(&above).collect();
        assert!(below.is_empty(), "`{name}` is above {below:?}");
        above.insert(name);
    }
}

#[test]
fn a_folder_of_code_has_few_entries() {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = sources().iter().map(|it| root().join(it)).collect();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap();
        let paths: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
        let names = paths.iter().map(|path| path.with_extension(""));
        let modules: BTreeSet<_> = names.filter(|it| !it.ends_with("tests")).collect();
        if modules.len() > ENTRIES_MAX {
            found.push(format!("{}: {}", folder.display(), modules.len()));
        }
        folders.extend(paths.into_iter().filter(|path| path.is_dir()));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn modules_import_only_what_the_code_map_names_above_them() {
    let mut found = Vec::new();
    for (folder, rows) in code_map() {
        let path = root().join(&folder);
        let sources = sources();
        let krate = sources.iter().find(|it| folder.starts_with(*it));
        let Some(krate) = krate.filter(|_| path.is_dir()) else {
            continue;
        };
        let inside = Path::new(&folder).strip_prefix(krate).unwrap();
        let inside: Module = inside
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        let row_of = |module: &Module| -> Option<(usize, String)> {
            let name = module.strip_prefix(inside.as_slice())?.first()?;
            let row = rows.iter().position(|names| names.contains(name));
            Some((row?, name.clone()))
        };
        for (module, imports) in imports(&root().join(krate)) {
            let Some((row, from)) = row_of(&module) else {
                continue;
            };
            for import in imports {
                if let Some((other, to)) = row_of(&import)
                    && other > row
                {
                    found.push(format!(
                        "{folder}: `{from}` imports `{to}`, which is below it"
                    ));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
