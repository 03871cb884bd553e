// SPDX-License-Identifier: GPL-2.0

//! Device trees from the text that tests/qemu/check_tree.py prints.

use crate::pure::devicetree::Node;
use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::{CStr, CString},
    fmt,
    rc::Rc,
};

type Properties = HashMap<CString, &'static [u8]>;

/// A device tree; phandles are the positions of nodes in the text.
pub struct Tree {
    paths: Vec<String>,
    properties: RefCell<Vec<Properties>>,
}

/// A node of a [`Tree`].
#[derive(Clone)]
pub struct TestNode {
    tree: Rc<Tree>,
    index: usize,
}

impl Tree {
    /// Reads a tree: paths start at the margin, `name value...` of properties is indented. Values
    /// are hexadecimal cells, quoted strings, paths with an ampersand for phandles, and bytes in
    /// brackets.
    pub fn parse(text: &str) -> Rc<Self> {
        let mut paths = vec![String::from("/")];
        let mut lines = Vec::new();

        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("  ") {
                None => paths.push(line.to_string()),
                Some(property) => lines.push((paths.len() - 1, property)),
            }
        }
        let tree = Rc::new(Self {
            properties: RefCell::new(vec![Properties::new(); paths.len()]),
            paths,
        });

        for (index, line) in lines {
            let (name, words) = line.split_once(' ').unwrap_or((line, ""));
            let node = TestNode {
                tree: tree.clone(),
                index,
            };

            node.set(&CString::new(name).unwrap(), tree.bytes(words));
        }
        tree
    }

    /// Returns the value of a property from its text.
    pub fn bytes(&self, words: &str) -> Vec<u8> {
        words
            .split_whitespace()
            .flat_map(|word| self.value(word))
            .collect()
    }

    fn value(&self, word: &str) -> Vec<u8> {
        if let Some(text) = word.strip_prefix('"') {
            return [text.trim_end_matches('"').as_bytes(), b"\0"].concat();
        }
        if let Some(digits) = word.strip_prefix('[') {
            return digits
                .trim_end_matches(']')
                .as_bytes()
                .chunks(2)
                .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 16).unwrap())
                .collect();
        }
        let cell = match word.strip_prefix('&') {
            // Nodes outside of the text have phandles, too; they are not looked for.
            Some(path) => self.position(path).map_or(0xffff, |index| index as u32),
            None => u32::from_str_radix(word, 16).unwrap(),
        };

        cell.to_be_bytes().to_vec()
    }

    fn position(&self, path: &str) -> Option<usize> {
        self.paths.iter().position(|other| other == path)
    }

    /// Returns a tree with the same values, to be changed.
    #[allow(dead_code, reason = "for tests/fuzz/pure")]
    pub fn copy(&self) -> Rc<Self> {
        Rc::new(Self {
            paths: self.paths.clone(),
            properties: self.properties.clone(),
        })
    }

    /// Returns how many nodes there are.
    #[allow(dead_code, reason = "for tests/fuzz/pure")]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns a node by its number, less than [`Tree::len`].
    #[allow(dead_code, reason = "for tests/fuzz/pure")]
    pub fn nth(self: &Rc<Self>, index: usize) -> TestNode {
        TestNode {
            tree: self.clone(),
            index,
        }
    }

    /// Returns the node at `path`, which must exist.
    pub fn node(self: &Rc<Self>, path: &str) -> TestNode {
        TestNode {
            tree: self.clone(),
            index: self.position(path).unwrap(),
        }
    }
}

impl TestNode {
    /// Sets a property. The memory of values is never freed, so that references stay valid.
    pub fn set(&self, name: &CStr, bytes: Vec<u8>) {
        let properties = &mut self.tree.properties.borrow_mut()[self.index];

        properties.insert(name.into(), Vec::leak(bytes));
    }

    /// Removes a property, which must exist.
    pub fn remove(&self, name: &CStr) {
        self.tree.properties.borrow_mut()[self.index]
            .remove(name)
            .unwrap();
    }
}

impl fmt::Display for TestNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tree.paths[self.index])
    }
}

impl fmt::Debug for TestNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Node for TestNode {
    fn property(&self, name: &CStr) -> Option<&[u8]> {
        self.tree.properties.borrow()[self.index].get(name).copied()
    }

    fn phandle(&self) -> u32 {
        self.index as u32
    }

    fn find(&self, phandle: u32) -> Option<Self> {
        let index = phandle as usize;

        (index < self.tree.paths.len()).then(|| Self {
            tree: self.tree.clone(),
            index,
        })
    }

    fn parent(&self) -> Option<Self> {
        let (parent, _) = self.tree.paths[self.index].rsplit_once('/')?;
        let path = if parent.is_empty() { "/" } else { parent };
        let index = self.tree.position(path)?;

        (index != self.index).then(|| Self {
            tree: self.tree.clone(),
            index,
        })
    }

    fn any_child(&self, f: &mut dyn FnMut(&Self) -> bool) -> bool {
        (0..self.tree.paths.len())
            .map(|index| Self {
                tree: self.tree.clone(),
                index,
            })
            .filter(|node| {
                node.parent()
                    .is_some_and(|parent| parent.index == self.index)
            })
            .any(|node| f(&node))
    }

    fn any_with(&self, name: &CStr, f: &mut dyn FnMut(&Self) -> bool) -> bool {
        (0..self.tree.paths.len())
            .map(|index| Self {
                tree: self.tree.clone(),
                index,
            })
            .filter(|node| node.property(name).is_some())
            .any(|node| f(&node))
    }
}
