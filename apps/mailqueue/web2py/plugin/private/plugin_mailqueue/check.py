"""Say what is wrong with the application's mail, and what to do; exit 0: nothing is, 1: something is.

web2py.py -S yourapp -M -R applications/yourapp/private/plugin_mailqueue/check.py
"""

from plugin_mailqueue.check import run_and_exit

run_and_exit([mail])
