// SPDX-License-Identifier: GPL-2.0

//! The device tree as sysfs shows it, for the reader that the kernel module has.

use crate::{pure::devicetree::Node, source::Source};
use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    ffi::CStr,
    fmt,
};

/// Where Linux shows the tree.
pub const BASE: &str = "/sys/firmware/devicetree/base";

/// No firmware makes as many nodes, nor nests them so deep.
const MOST_NODES: usize = 1 << 17;
const DEEPEST: usize = 64;

struct Data {
    /// Below [`BASE`], starting with a slash; empty for the root.
    path: String,
    depth: usize,
    parent: Option<usize>,
    phandle: u32,
    /// Whether the phandle is in a recording.
    remembered: OnceCell<()>,
    children: Vec<usize>,
    /// Properties; their values are read when they are asked for.
    properties: BTreeMap<String, OnceCell<Option<Vec<u8>>>>,
}

/// A device tree.
pub struct Tree<'a> {
    source: &'a Source,
    nodes: Vec<Data>,
    phandles: HashMap<u32, usize>,
    paths: HashMap<String, usize>,
}

impl<'a> Tree<'a> {
    /// Reads the tree of a host, if it has one.
    pub fn read(source: &'a Source) -> Option<Self> {
        source.peek_folder(BASE)?;
        let mut tree = Self {
            source,
            nodes: Vec::new(),
            phandles: HashMap::new(),
            paths: HashMap::new(),
        };
        tree.add(String::new(), None, 0);

        let mut next = 0;
        while let Some(node) = tree.nodes.get(next) {
            let (path, depth) = (node.path.clone(), node.depth);
            for (name, folder) in source
                .peek_folder(&format!("{BASE}{path}"))
                .unwrap_or_default()
            {
                if !folder {
                    if let Some(node) = tree.nodes.get_mut(next) {
                        node.properties.insert(name, OnceCell::new());
                    }
                } else if tree.nodes.len() < MOST_NODES && depth < DEEPEST {
                    let child = tree.add(
                        format!("{path}/{name}"),
                        Some(next),
                        depth.saturating_add(1),
                    );
                    if let Some(node) = tree.nodes.get_mut(next) {
                        node.children.push(child);
                    }
                }
            }
            next = next.saturating_add(1);
        }
        Some(tree)
    }

    fn add(&mut self, path: String, parent: Option<usize>, depth: usize) -> usize {
        let index = self.nodes.len();
        let bytes = self.source.peek(&format!("{BASE}{path}/phandle"));
        let phandle = bytes
            .and_then(|bytes| crate::pure::cells::cell(&bytes))
            .unwrap_or(0);

        if phandle != 0 {
            self.phandles.entry(phandle).or_insert(index);
        }
        self.paths.insert(path.clone(), index);
        self.nodes.push(Data {
            path,
            depth,
            parent,
            phandle,
            remembered: OnceCell::new(),
            children: Vec::new(),
            properties: BTreeMap::new(),
        });
        index
    }

    /// The node at a path in sysfs, such as where `of_node` of a device leads to.
    pub fn node<'t>(&'t self, sysfs: &str) -> Option<TreeNode<'t>> {
        let index = *self.paths.get(sysfs.strip_prefix(BASE)?)?;
        Some(TreeNode { tree: self, index })
    }

    /// Has a recording find the node again: that it was looked at can matter even if it lacks what was
    /// looked for.
    fn remember_phandle(&self, index: usize) {
        if let Some(data) = self.nodes.get(index) {
            data.remembered.get_or_init(|| {
                self.source.read(&format!("{BASE}{}/phandle", data.path));
            });
        }
    }

    /// The nodes that have a property. The others are none of a recording's business.
    pub fn with_property<'t>(&'t self, name: &str) -> impl Iterator<Item = TreeNode<'t>> {
        self.nodes
            .iter()
            .enumerate()
            .filter(move |(_, data)| data.properties.contains_key(name))
            .map(|(index, _)| TreeNode { tree: self, index })
    }

    /// The root.
    pub fn root(&self) -> Option<TreeNode<'_>> {
        self.node(BASE)
    }
}

/// A node of a tree.
#[derive(Clone, Copy)]
pub struct TreeNode<'t> {
    tree: &'t Tree<'t>,
    index: usize,
}

impl<'t> TreeNode<'t> {
    fn data(self) -> Option<&'t Data> {
        self.tree.nodes.get(self.index)
    }

    /// Its path, `/` for the root.
    pub fn path(self) -> &'t str {
        match self.data().map_or("", |data| &data.path) {
            "" => "/",
            path => path,
        }
    }

    /// The value of a property.
    pub fn bytes(self, name: &str) -> Option<&'t [u8]> {
        let data = self.data()?;
        self.tree.remember_phandle(self.index);
        let value = data.properties.get(name)?.get_or_init(|| {
            self.tree
                .source
                .read(&format!("{BASE}{}/{name}", data.path))
        });

        value.as_deref()
    }

    /// A property that is text: the first of its strings.
    pub fn text(self, name: &str) -> Option<String> {
        let bytes = self.bytes(name)?;
        let first = bytes.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(first).into_owned())
    }

    /// A property that is a cell.
    pub fn cell(self, name: &str) -> Option<u32> {
        crate::pure::cells::cell(self.bytes(name)?)
    }

    /// The node that has `phandle`.
    pub fn by_phandle(self, phandle: u32) -> Option<Self> {
        let index = *self.tree.phandles.get(&phandle)?;
        self.tree.remember_phandle(index);
        Some(Self { index, ..self })
    }

    /// The node above.
    pub fn above(self) -> Option<Self> {
        let index = self.data()?.parent?;
        Some(Self { index, ..self })
    }
}

impl fmt::Display for TreeNode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

impl Node for TreeNode<'_> {
    fn property(&self, name: &CStr) -> Option<&[u8]> {
        self.bytes(name.to_str().ok()?)
    }

    fn phandle(&self) -> u32 {
        self.data().map_or(0, |data| data.phandle)
    }

    fn find(&self, phandle: u32) -> Option<Self> {
        self.by_phandle(phandle)
    }

    fn parent(&self) -> Option<Self> {
        self.above()
    }

    fn any_child(&self, f: &mut dyn FnMut(&Self) -> bool) -> bool {
        self.data().is_some_and(|data| {
            data.children.iter().any(|index| {
                f(&Self {
                    index: *index,
                    ..*self
                })
            })
        })
    }

    fn any_with(&self, name: &CStr, f: &mut dyn FnMut(&Self) -> bool) -> bool {
        name.to_str()
            .is_ok_and(|name| self.tree.with_property(name).any(|node| f(&node)))
    }
}
