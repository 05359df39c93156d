import json


def index():
    return "index"


def user():
    return dict(form=auth())


def invite():
    return dict(form=auth.bulk_register())


def become_admin():
    return __become("admin")


def become_auditor():
    return __become("auditors")


def __become(role):
    group = auth.id_group(role) or auth.add_group(role)
    auth.add_membership(group, auth.user_id)
    return "done"


def run():
    """What a test has written into private/scenario.py, in a request of its own."""
    with open(os.path.join(request.folder, "private", "scenario.py"), encoding="utf-8") as file:
        program = compile(file.read(), "scenario.py", "exec")
    found = {}
    exec(program, dict(globals(), found=found))
    return json.dumps(found)
