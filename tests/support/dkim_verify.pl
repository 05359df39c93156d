# Verifies the message on stdin by Mail::DKIM, and prints a line "selector what-came-of-it" for each signature.
# Arguments: name=record for each public key, in the place of the DNS.
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::DNS;
use Net::DNS::RR;

my %published = map { split /=/, $_, 2 } @ARGV;
{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name) = @_;
        return unless exists $published{$name};
        return Net::DNS::RR->new( name => $name, type => 'TXT', txtdata => $published{$name} );
    };
}
my $verifier = Mail::DKIM::Verifier->new();
binmode STDIN;
local $/;
$verifier->PRINT(<STDIN>);
$verifier->CLOSE;
for my $signature ( $verifier->signatures ) {
    ( my $said = $signature->result_detail ) =~ s/\s+/ /g;
    print $signature->selector, ' ', $said, "\n";
}
