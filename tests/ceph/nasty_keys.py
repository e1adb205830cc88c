"""Keys that S3 allows, and that have ever broken somebody's listing."""

KEYS = (
    *("plain", "a b", " begins", "ends ", "a+b", "a%20b", "%41%2F", "%", "100%", "a%zz", "~", "|"),
    *("a&b", "&amp;", "<k>", "]]>", "'\"`", "a=b;c", "what?x=1#y", "back\\slash", "*[a]?"),
    *("/", "//", "/a", "//a//b", "d/", "d//", "d/e", "d/e/", "./a", "../a", "a/./b", "a/../b"),
    *("\x01ctl", "tab\there", "new\nline", "return\rhere", "\x1f", "\x7f", "\x85", "\u2028"),
    *("é", "e\u0301", "ÅÄÖ/ñ", "日本語/ファイル", "\u202eedoc", "😀", "😀/😀"),
    *("\uffee", "z\ufffez", "long/" + "/".join("abcdefgh") * 30),
    *("k" * 1024, "é" * 512, "😀" * 256),
)
