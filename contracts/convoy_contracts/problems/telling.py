"""What a command line says when it refuses: code, cause and fix, the same in Chinese, and where to read more."""

from __future__ import annotations

from convoy_contracts.problems import PROBLEMS


def told(error: Exception) -> str:
    """Return the lines for standard error; works for the errors of every package, known to the catalogue or not.

    The Chinese fix is the one that the raise gave (an attribute of the error itself), else that of the code in the catalogue;
    never that of the class, whose code may have been overridden.
    """
    code, cause, fix = (str(getattr(error, name, "") or "") for name in ("code", "cause", "fix"))
    text = str(error)
    lines = [text if code and text.startswith(code) else f"{code}: {cause or text}" if code else text]
    if fix and fix not in lines[0]:
        lines.append(fix if fix.startswith("Fix") else f"Fix: {fix}")
    entry = PROBLEMS.get(code)
    if entry is not None and not fix and entry.fix not in text:
        lines.append(f"Fix: {entry.fix}")
    if entry is not None:
        lines += [
            f"{entry.title_zh}{vars(error).get('fix_zh') or entry.fix_zh}",
            f"More: convoy-contracts problem {code}",
        ]
    return "\n".join(lines)
