//! Hashes of the chain, and the RFC 6962 tree over its batch lines.
use aws_lc_rs::digest;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// SHA-256 of the parts one after another.
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|p| context.update(p));
    finish(context)
}

/// The hash a context has come to.
pub(crate) fn finish(context: digest::Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A Merkle tree that only grows: the roots of its full subtrees, largest first.
///
/// INVARIANT: as many roots as `size` has set bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    size: u64,
    roots: Vec<Hash>,
}

impl Tree {
    pub(crate) fn restore(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
    pub(crate) fn roots(&self) -> &[Hash] {
        &self.roots
    }

    pub(crate) fn push(&mut self, leaf: &Hash) {
        let mut hash = sha256(&[&[0], leaf]);
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                hash = sha256(&[&[1], &left, &hash]);
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    pub(crate) fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(mut hash) = roots.next().copied() else { return sha256(&[]) };
        for left in roots {
            hash = sha256(&[&[1], left, &hash]);
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 section 2.1, as written there.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [one] => sha256(&[&[0], one]),
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                sha256(&[&[1], &naive(&leaves[..k]), &naive(&leaves[k..])])
            }
        }
    }

    #[test]
    fn the_growing_tree_has_the_root_of_the_recursive_definition() {
        let mut tree = Tree::default();
        let mut leaves = Vec::new();
        assert_eq!(tree.root(), naive(&leaves));
        for n in 0..70u8 {
            leaves.push([n; 32]);
            tree.push(&[n; 32]);
            assert_eq!(tree.root(), naive(&leaves), "{n}");
            assert_eq!(Tree::restore(tree.size(), tree.roots().to_vec()).as_ref(), Some(&tree));
        }
    }
}
