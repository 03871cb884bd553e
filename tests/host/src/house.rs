// SPDX-License-Identifier: GPL-2.0

//! How the module's files may refer to one another: one way, from what is close to user space and the PCI core down to
//! what needs no kernel; and one name for one thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use syn::{visit::Visit, Item, UseTree, Visibility};

/// The folders of `src`, of which each may refer to itself and to those behind it.
const LAYERS: [&str; 5] = ["function", "binding", "regions", "linux", "pure"];

/// A module's path, without `crate`; that of `src/linux/mm/vma.rs` is `["linux", "mm", "vma"]`.
type Module = Vec<String>;

/// What one file says.
struct Source {
    path: PathBuf,
    module: Module,
    file: syn::File,
}

/// Collects the paths that start at the crate's root.
struct Paths<'a> {
    module: &'a Module,
    /// How many modules of the same file the visitor is in.
    inline: usize,
    found: Vec<Module>,
}

impl Paths<'_> {
    fn add(&mut self, names: Vec<String>) {
        let up = names.iter().take_while(|name| *name == "super").count();
        let rest = names.iter().skip(up).cloned();

        match names.first().map(String::as_str) {
            Some("crate") => self.found.push(names[1..].to_vec()),
            Some("super") if up > self.inline => {
                let base = &self.module[..self.module.len() + self.inline - up];

                self.found.push(base.iter().cloned().chain(rest).collect());
            }
            _ => {}
        }
    }

    fn add_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();

        match tree {
            UseTree::Path(path) => self.add_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => self.add(with(&name.ident)),
            UseTree::Rename(name) => self.add(with(&name.ident)),
            UseTree::Glob(_) => self.add(before.to_vec()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(tree, before);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_use_tree(&mut self, tree: &'ast UseTree) {
        self.add_tree(tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(
            path.segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect(),
        );
        syn::visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inline += 1;
        syn::visit::visit_item_mod(self, item);
        self.inline -= 1;
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();

            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut paths = Vec::new();

    walk(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let inside = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Module = inside
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();

            if module
                .last()
                .is_some_and(|last| last == "mod" || last == "nvlink2")
            {
                module.pop();
            }
            Source {
                path: inside,
                module,
                file,
            }
        })
        .collect()
}

/// Which files each file refers to; the generated bindings are none.
fn references(sources: &[Source]) -> BTreeMap<&Module, BTreeSet<&Module>> {
    let modules: BTreeSet<&Module> = sources.iter().map(|source| &source.module).collect();

    sources
        .iter()
        .map(|source| {
            let mut paths = Paths {
                module: &source.module,
                inline: 0,
                found: Vec::new(),
            };

            paths.visit_file(&source.file);
            let to = paths.found.iter().filter_map(|path| {
                (1..=path.len())
                    .rev()
                    .find_map(|len| modules.get(&path[..len].to_vec()).copied())
            });

            (
                &source.module,
                to.filter(|to| *to != &source.module).collect(),
            )
        })
        .collect()
}

/// Returns the files from `at` back to itself, if there is a way.
fn circle<'a>(
    references: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
    at: &'a Module,
    way: &mut Vec<&'a Module>,
    done: &mut BTreeSet<&'a Module>,
) -> Option<Vec<String>> {
    if let Some(start) = way.iter().position(|other| *other == at) {
        return Some(
            way[start..]
                .iter()
                .chain([&at])
                .map(|module| module.join("::"))
                .collect(),
        );
    }
    if !done.insert(at) {
        return None;
    }
    way.push(at);
    let found = references[at]
        .iter()
        .find_map(|to| circle(references, to, way, done));

    way.pop();
    found
}

#[test]
fn no_file_refers_to_itself_by_others() {
    let sources = sources();
    let references = references(&sources);
    let mut done = BTreeSet::new();

    assert!(
        references.values().any(|to| !to.is_empty()),
        "no reference was found"
    );
    for at in references.keys() {
        let found = circle(&references, at, &mut Vec::new(), &mut done);

        assert_eq!(found, None, "files that refer to one another in a circle");
    }
}

#[test]
fn folders_refer_to_those_below() {
    let sources = sources();
    let layer = |module: &Module| {
        LAYERS
            .iter()
            .position(|layer| module.first().is_some_and(|first| first == layer))
    };

    for (from, to) in references(&sources) {
        // The root and the module's registration know all of them.
        let Some(own) = layer(from) else {
            continue;
        };

        for to in to {
            assert!(
                layer(to).is_some_and(|other| other >= own),
                "{} refers to {}, which is not below it",
                from.join("::"),
                to.join("::"),
            );
        }
    }
}

#[test]
fn one_name_is_one_file_and_one_type() {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut types: BTreeMap<String, PathBuf> = BTreeMap::new();

    for source in sources() {
        let stem = source
            .path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();

        if stem != "mod" {
            let other = files.insert(stem.clone(), source.path.clone());

            assert_eq!(
                other, None,
                "another file of the name {stem} is {:?}",
                source.path
            );
        }
        for item in &source.file.items {
            let (visibility, name) = match item {
                Item::Struct(item) => (&item.vis, &item.ident),
                Item::Enum(item) => (&item.vis, &item.ident),
                Item::Trait(item) => (&item.vis, &item.ident),
                Item::Type(item) => (&item.vis, &item.ident),
                _ => continue,
            };

            if matches!(visibility, Visibility::Inherited) {
                continue;
            }
            if let Some(other) = types.insert(name.to_string(), source.path.clone()) {
                panic!("{name} is a type of {other:?} and of {:?}", source.path);
            }
        }
    }
}
