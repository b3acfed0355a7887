//! Samples joined along their first axis, so that one run of the model serves several.

use crate::data::Sample;
use crate::tensor::Values;

/// Groups of samples that can be joined: those of the same shapes, at most `most` together, in their order.
pub fn groups(samples: Vec<(usize, Sample)>, most: usize) -> Vec<(Vec<usize>, Sample)> {
    let mut groups: Vec<(Vec<usize>, Vec<usize>, Sample)> = Vec::new();
    for (index, sample) in samples {
        let shapes: Vec<usize> = sample.feeds.iter().flat_map(|(_, tensor)| tensor.shape.iter().copied()).collect();
        let joins = |group: &&mut (Vec<usize>, Vec<usize>, Sample)| group.0 == shapes && group.1.len() < most;
        if let Some(group) = groups.iter_mut().find(joins)
            && join(&mut group.2, &sample)
        {
            group.1.push(index);
        } else {
            groups.push((shapes, vec![index], sample));
        }
    }
    groups.into_iter().map(|(_, indices, sample)| (indices, sample)).collect()
}

/// Appends `next` to `all` along the first axis; leaves `all` alone where they do not fit.
pub fn join(all: &mut Sample, next: &Sample) -> bool {
    let fits = |((name, a), (other, b)): (&(String, _), &(String, crate::tensor::Tensor))| {
        let a: &crate::tensor::Tensor = a;
        name == other && !a.shape.is_empty() && a.shape.get(1..) == b.shape.get(1..) && same_type(&a.values, &b.values)
    };
    if all.feeds.len() != next.feeds.len() || !all.feeds.iter().zip(&next.feeds).all(fits) {
        return false;
    }
    for ((_, a), (_, b)) in all.feeds.iter_mut().zip(&next.feeds) {
        append(&mut a.values, &b.values);
        if let (Some(rows), Some(more)) = (a.shape.first_mut(), b.shape.first()) {
            *rows += more;
        }
    }
    true
}

fn same_type(a: &Values, b: &Values) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn append(to: &mut Values, from: &Values) {
    macro_rules! each {
        ($($kind:ident),+) => {
            match (to, from) {
                $((Values::$kind(a), Values::$kind(b)) => a.extend(b.iter().cloned()),)+
                _ => {}
            }
        };
    }
    each!(F32, F64, F16, Bf16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    fn sample(rows: usize, width: usize) -> Sample {
        let x = Tensor::from_f32(vec![rows, width], vec![rows as f32; rows * width]);
        Sample { feeds: vec![("x".to_owned(), x)] }
    }

    #[test]
    fn samples_of_one_shape_are_joined_in_order() {
        let samples = vec![(4, sample(1, 2)), (5, sample(1, 3)), (6, sample(1, 2)), (7, sample(1, 2))];
        let groups = groups(samples, 2);
        let indices: Vec<&[usize]> = groups.iter().map(|(indices, _)| indices.as_slice()).collect();
        assert_eq!(indices, [&[4, 6][..], &[5], &[7]]);
        assert_eq!(groups[0].1.feeds[0].1.shape, [2, 2]);
        assert_eq!(groups[0].1.feeds[0].1.values.len(), 4);
    }

    #[test]
    fn scalars_and_other_types_are_not_joined() {
        let scalar = Sample { feeds: vec![("x".to_owned(), Tensor::from_f32(vec![], vec![1.0]))] };
        assert!(!join(&mut scalar.clone(), &scalar));
        let other =
            Sample { feeds: vec![("x".to_owned(), Tensor { shape: vec![1, 2], values: Values::I64(vec![1, 2]) })] };
        assert!(!join(&mut sample(1, 2), &other));
    }
}
