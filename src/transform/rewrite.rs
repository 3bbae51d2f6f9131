//! Puts the calls that count into a program's syntax tree. Every place where jq can loop, multiply outputs, call
//! or make something gets one: `#step` and `#link` pay for steps, `#weigh` for looking at all of a value, `#copy`
//! for copying its surface, `#made` for a new value. Names with `#` cannot be written by a person.
//!
//! Arithmetic, comparison of two computed values, and native functions are routed through guards, since one call of
//! them can do unbounded work. Purely a function of the tree; knows no values.

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Part, Path};

type T<'s> = Term<&'s str>;

/// Which names mean native functions where we are.
pub(super) struct Rewrite<'s> {
    natives: BTreeSet<(&'s str, usize)>,
    /// Definitions and arguments that hide a native function of the same name.
    scope: Vec<(&'s str, usize)>,
    /// Terms around this one.
    depth: usize,
}

/// Terms inside terms become calls inside calls: so often the stack is looked at on the way in.
const STEP_EVERY_DEPTH: usize = 16;
/// The compiler nests the entries of an object and the parts of a text; above this many they are cut.
const MAX_ENTRIES: usize = 32;

/// Functions that hand values on without making or searching any.
const LIGHT: [&str; 6] = ["first", "last", "limit", "skip", "range", "error_empty"];

impl<'s> Rewrite<'s> {
    pub(super) fn new(natives: impl Iterator<Item = (&'s str, usize)>) -> Self {
        Self { natives: natives.collect(), scope: Vec::new(), depth: 0 }
    }

    /// One definition of the standard library, or of the program itself.
    pub(super) fn def(&mut self, def: Def<&'s str>) -> Def<&'s str> {
        let own = (def.name, def.args.len());
        let closes = def.args.iter().any(|arg| !arg.starts_with('$')) && calls(&def.body, own);
        let depth = self.scope.len();
        self.scope.push(own);
        self.scope.extend(def.args.iter().map(|arg| (*arg, 0)));
        let body = self.term(def.body);
        self.scope.truncate(depth);
        let count = if closes { "#link" } else { "#enter" };
        Def { body: pipe(call(count), body), ..def }
    }

    /// A term with its counters.
    pub(super) fn term(&mut self, term: T<'s>) -> T<'s> {
        self.depth += 1;
        let step = self.depth.is_multiple_of(STEP_EVERY_DEPTH);
        let term = self.inner(term);
        self.depth -= 1;
        if step { pipe(call("#step"), term) } else { term }
    }

    fn inner(&mut self, term: T<'s>) -> T<'s> {
        match term {
            Term::Id | Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => term,
            Term::Recurse => pipe(call("#weigh"), term),
            Term::Str(format, parts) => {
                let parts = self.parts(parts);
                sum(parts, &|parts| Term::Str(format, parts))
            }
            Term::Arr(Some(inner)) => pipe(Term::Arr(Some(Box::new(self.term(*inner)))), call("#made")),
            Term::Obj(entries) if entries.is_empty() => Term::Obj(entries),
            Term::Obj(entries) => pipe(sum(self.entries(entries), &Term::Obj), call("#made")),
            Term::Neg(inner) => Term::Neg(Box::new(self.term(*inner))),
            Term::BinOp(left, op, right) => self.binary(*left, op, *right),
            Term::Label(name, inner) => Term::Label(name, Box::new(self.term(*inner))),
            Term::Fold(name, from, pattern, args) => {
                let from = self.counted(*from);
                let pattern = self.pattern(pattern);
                let args = args.into_iter().enumerate();
                let args = args.map(|(at, arg)| {
                    let arg = self.term(arg);
                    if at == 0 { arg } else { pipe(call("#enter"), arg) }
                });
                Term::Fold(name, Box::new(from), pattern, args.collect())
            }
            Term::TryCatch(inner, catch) => {
                let catch = catch.map(|catch| Box::new(self.term(*catch)));
                Term::TryCatch(Box::new(self.term(*inner)), catch)
            }
            Term::IfThenElse(cases, other) => {
                let cases =
                    cases.into_iter().map(|(cond, then)| (self.counted(cond), self.term(then))).collect();
                Term::IfThenElse(cases, other.map(|other| Box::new(self.term(*other))))
            }
            Term::Def(defs, inner) => {
                let depth = self.scope.len();
                let mut rewritten = Vec::new();
                for def in defs {
                    let own = (def.name, def.args.len());
                    rewritten.push(self.def(def));
                    self.scope.push(own);
                }
                let inner = self.term(*inner);
                self.scope.truncate(depth);
                Term::Def(rewritten, Box::new(inner))
            }
            Term::Call(name, args) => self.call(name, args),
            Term::Path(head, path) => self.path(*head, path),
        }
    }

    /// A term each of whose outputs is a step.
    fn counted(&mut self, term: T<'s>) -> T<'s> {
        let simple = is_simple(&term);
        let term = self.term(term);
        if simple { term } else { pipe(term, call("#step")) }
    }

    /// A term each of whose outputs will be looked at as a whole.
    fn weighed(&mut self, term: T<'s>) -> T<'s> {
        let constant = matches!(term, Term::Num(_)) || is_text(&term);
        let term = self.term(term);
        if constant { term } else { pipe(term, call("#weigh")) }
    }

    fn parts(&mut self, parts: Vec<StrPart<&'s str, T<'s>>>) -> Vec<StrPart<&'s str, T<'s>>> {
        let part = |part| match part {
            StrPart::Term(term) => StrPart::Term(pipe(self.term(term), call("#made"))),
            StrPart::Str(_) | StrPart::Char(_) => part,
        };
        parts.into_iter().map(part).collect()
    }

    fn entries(&mut self, entries: Vec<(T<'s>, Option<T<'s>>)>) -> Vec<(T<'s>, Option<T<'s>>)> {
        let entry = |(key, value)| match (key, value) {
            // `{a}`, `{$x}` and `{"a\(1)"}` mean more than their key: only what is inside the text changes.
            (Term::Str(format, parts), None) => (Term::Str(format, self.parts(parts)), None),
            (key, None) => (key, None),
            (Term::Str(format, parts), Some(value)) => {
                (Term::Str(format, self.parts(parts)), Some(self.counted(value)))
            }
            (key, Some(value)) => (self.counted(key), Some(self.counted(value))),
        };
        entries.into_iter().map(entry).collect()
    }

    fn pattern(&mut self, pattern: Pattern<&'s str>) -> Pattern<&'s str> {
        match pattern {
            Pattern::Var(_) => pattern,
            Pattern::Arr(items) => Pattern::Arr(items.into_iter().map(|item| self.pattern(item)).collect()),
            Pattern::Obj(entries) => {
                let entry = |(key, inner)| (self.counted(key), self.pattern(inner));
                Pattern::Obj(entries.into_iter().map(entry).collect())
            }
        }
    }

    fn binary(&mut self, left: T<'s>, op: BinaryOp<&'s str>, right: T<'s>) -> T<'s> {
        match op {
            BinaryOp::Pipe(pattern) => {
                let quiet = is_simple(&left);
                let left = self.term(left);
                let pattern = pattern.map(|pattern| self.pattern(pattern));
                let right = self.term(right);
                let right = if quiet { right } else { pipe(call("#step"), right) };
                bin(left, BinaryOp::Pipe(pattern), right)
            }
            BinaryOp::Comma => {
                let mut items = Vec::new();
                flatten(left, &mut items);
                flatten(right, &mut items);
                balanced(items.into_iter().map(|item| self.term(item)).collect())
            }
            BinaryOp::Alt => bin(self.term(left), op, self.term(right)),
            BinaryOp::Or | BinaryOp::And => bin(self.counted(left), op, self.counted(right)),
            BinaryOp::Math(math) => {
                let args = vec![self.term(left), self.term(right)];
                pipe(Term::Call(guard(math), args), call("#step"))
            }
            BinaryOp::Cmp(_) => {
                // Against a literal the comparison ends with the shorter text or at the first difference in type.
                let literal = |term: &T<'s>| is_text(term) || matches!(term, Term::Num(_));
                if literal(&left) || literal(&right) {
                    bin(self.counted(left), op, self.counted(right))
                } else {
                    bin(self.weighed(left), op, self.weighed(right))
                }
            }
            BinaryOp::Assign | BinaryOp::UpdateAlt => {
                let right = pipe(self.term(right), call("#made"));
                pipe(call("#copy"), bin(self.term(left), op, right))
            }
            BinaryOp::Update => {
                let right = pipe(call("#step"), pipe(self.term(right), call("#made")));
                pipe(call("#copy"), bin(self.term(left), op, right))
            }
            BinaryOp::UpdateMath(math) => {
                // `l += r` is `r as $x | l |= . + $x`.
                let sum = Term::Call(guard(math), vec![Term::Id, Term::Var("$#right")]);
                let update = bin(self.term(left), BinaryOp::Update, pipe(sum, call("#made")));
                let right = self.counted(right);
                bin(right, BinaryOp::Pipe(Some(Pattern::Var("$#right"))), pipe(call("#copy"), update))
            }
        }
    }

    fn call(&mut self, name: &'s str, args: Vec<T<'s>>) -> T<'s> {
        let arity = args.len();
        let hidden = self.scope.contains(&(name, arity));
        if hidden || !self.natives.contains(&(name, arity)) {
            return Term::Call(name, args.into_iter().map(|arg| self.term(arg)).collect());
        }
        if LIGHT.contains(&name) {
            let args = args.into_iter().map(|arg| self.term(arg)).collect();
            return pipe(Term::Call(name, args), call("#step"));
        }
        let guard = match name {
            "contains" | "indices" | "has" | "bsearch" => Some("#product"),
            "matches" | "split_matches" | "split_" => Some("#regex"),
            _ => None,
        };
        let inner = match guard {
            Some(guard) => {
                // The arguments are bound first, so that the guard sees what the function will see.
                const NAMES: [&str; 2] = ["$#a", "$#b"];
                let bound = Term::Call(name, NAMES[..arity].iter().copied().map(Term::Var).collect());
                let guarded = pipe(Term::Call(guard, vec![Term::Var("$#a")]), bound);
                let args: Vec<_> = args.into_iter().map(|arg| self.weighed(arg)).collect();
                args.into_iter().zip(NAMES).rev().fold(guarded, |inner, (arg, name)| {
                    bin(arg, BinaryOp::Pipe(Some(Pattern::Var(name))), inner)
                })
            }
            None => Term::Call(name, args.into_iter().map(|arg| self.weighed(arg)).collect()),
        };
        pipe(call("#weigh"), pipe(inner, call("#made")))
    }

    fn path(&mut self, head: T<'s>, path: Path<T<'s>>) -> T<'s> {
        let ranges = path.0.iter().any(|(part, _)| matches!(part, Part::Range(..)));
        let independent = path.0.iter().all(|(part, _)| match part {
            Part::Index(at) => is_fixed(at),
            Part::Range(from, to) => from.iter().chain(to).all(is_fixed),
        });
        let head = self.term(head);
        if !ranges {
            return Term::Path(Box::new(head), self.path_parts(path.0));
        }
        if !independent {
            // The parts look at the value outside, so the path cannot be cut; its whole weight pays for it.
            let path = self.path_parts(path.0);
            return pipe(pipe(call("#weigh"), Term::Path(Box::new(head), path)), call("#step"));
        }
        // Iterating may copy a list: each `[]` pays for the surface of what it iterates.
        let mut term = head;
        for part in path.0 {
            if matches!(part.0, Part::Range(..)) {
                term = pipe(term, call("#copy"));
                term = pipe(term, Term::Path(Box::new(Term::Id), Path(vec![part])));
            } else if let Term::Path(_, Path(parts)) = last_of(&mut term) {
                parts.push(part);
            } else {
                term = Term::Path(Box::new(term), Path(vec![part]));
            }
        }
        term
    }

    fn path_parts(&mut self, parts: Vec<(Part<T<'s>>, jaq_core::path::Opt)>) -> Path<T<'s>> {
        let part = |(part, opt)| {
            let part = match part {
                Part::Index(at) => Part::Index(self.counted(at)),
                Part::Range(from, to) => {
                    Part::Range(from.map(|from| self.counted(from)), to.map(|to| self.counted(to)))
                }
            };
            (part, opt)
        };
        Path(parts.into_iter().map(part).collect())
    }
}

/// The last term of a pipe, which may take further path parts.
fn last_of<'t, 's>(term: &'t mut T<'s>) -> &'t mut T<'s> {
    match term {
        Term::BinOp(_, BinaryOp::Pipe(None), right) => last_of(right),
        other => other,
    }
}

/// What `make` makes of all `items`, or the sum of what it makes of parts of them.
fn sum<'s, I>(mut items: Vec<I>, make: &dyn Fn(Vec<I>) -> T<'s>) -> T<'s> {
    if items.len() <= MAX_ENTRIES {
        return make(items);
    }
    let half = items.split_off(items.len() / 2);
    pipe(call("#step"), Term::Call("#add", vec![sum(items, make), sum(half, make)]))
}

/// The terms of a list, however its commas are nested.
fn flatten<'s>(term: T<'s>, items: &mut Vec<T<'s>>) {
    if let Term::BinOp(left, BinaryOp::Comma, right) = term {
        flatten(*left, items);
        flatten(*right, items);
    } else {
        items.push(term);
    }
}

/// The same list with its commas nested as little as possible.
fn balanced<'s>(mut items: Vec<T<'s>>) -> T<'s> {
    if items.len() == 1 {
        return items.remove(0);
    }
    let half = items.split_off(items.len() / 2);
    bin(balanced(items), BinaryOp::Comma, balanced(half))
}

fn guard(math: Math) -> &'static str {
    match math {
        Math::Add => "#add",
        Math::Sub => "#sub",
        Math::Mul => "#mul",
        Math::Div => "#div",
        Math::Rem => "#rem",
    }
}

fn call<'s>(name: &'static str) -> T<'s> {
    Term::Call(name, Vec::new())
}

fn pipe<'s>(left: T<'s>, right: T<'s>) -> T<'s> {
    bin(left, BinaryOp::Pipe(None), right)
}

fn bin<'s>(left: T<'s>, op: BinaryOp<&'s str>, right: T<'s>) -> T<'s> {
    Term::BinOp(Box::new(left), op, Box::new(right))
}

fn is_text(term: &T<'_>) -> bool {
    matches!(term, Term::Str(None, parts) if !parts.iter().any(|part| matches!(part, StrPart::Term(_))))
}

/// The same whatever the input.
fn is_fixed(term: &T<'_>) -> bool {
    match term {
        Term::Num(_) | Term::Var(_) => true,
        Term::Neg(inner) => is_fixed(inner),
        other => is_text(other),
    }
}

/// Exactly one output at a fixed price.
fn is_simple(term: &T<'_>) -> bool {
    match term {
        Term::Id => true,
        Term::Path(head, path) => {
            is_simple(head) && path.0.iter().all(|(part, _)| matches!(part, Part::Index(at) if is_fixed(at)))
        }
        other => is_fixed(other),
    }
}

/// Whether `own` is called anywhere inside, hidden or not.
fn calls(term: &T<'_>, own: (&str, usize)) -> bool {
    let any = |terms: &[T<'_>]| terms.iter().any(|term| calls(term, own));
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Var(_) | Term::Break(_) => false,
        Term::Str(_, parts) => {
            parts.iter().any(|part| matches!(part, StrPart::Term(term) if calls(term, own)))
        }
        Term::Arr(inner) => inner.as_ref().is_some_and(|inner| calls(inner, own)),
        Term::Obj(entries) => entries
            .iter()
            .any(|(key, value)| calls(key, own) || value.as_ref().is_some_and(|v| calls(v, own))),
        Term::Neg(inner) | Term::Label(_, inner) => calls(inner, own),
        Term::BinOp(left, op, right) => {
            let pattern = matches!(op, BinaryOp::Pipe(Some(pattern)) if pattern_calls(pattern, own));
            pattern || calls(left, own) || calls(right, own)
        }
        Term::Fold(_, from, pattern, args) => calls(from, own) || pattern_calls(pattern, own) || any(args),
        Term::TryCatch(inner, catch) => calls(inner, own) || catch.as_ref().is_some_and(|c| calls(c, own)),
        Term::IfThenElse(cases, other) => {
            let cases = cases.iter().any(|(cond, then)| calls(cond, own) || calls(then, own));
            cases || other.as_ref().is_some_and(|other| calls(other, own))
        }
        Term::Def(defs, inner) => defs.iter().any(|def| calls(&def.body, own)) || calls(inner, own),
        Term::Call(name, args) => (*name, args.len()) == own || any(args),
        Term::Path(head, path) => {
            let part = |part: &Part<T<'_>>| match part {
                Part::Index(at) => calls(at, own),
                Part::Range(from, to) => from.iter().chain(to).any(|term| calls(term, own)),
            };
            calls(head, own) || path.0.iter().any(|(p, _)| part(p))
        }
    }
}

fn pattern_calls(pattern: &Pattern<&str>, own: (&str, usize)) -> bool {
    match pattern {
        Pattern::Var(_) => false,
        Pattern::Arr(items) => items.iter().any(|item| pattern_calls(item, own)),
        Pattern::Obj(entries) => {
            entries.iter().any(|(key, inner)| calls(key, own) || pattern_calls(inner, own))
        }
    }
}
